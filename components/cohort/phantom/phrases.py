"""What a report says of each finding: present, in the impression, absent, and as a noun for comparisons.

Fields in braces are filled by `fields`. A phrase of one finding never uses the word of another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.cohort.phantom import spec
from components.cohort.phantom.chest import cardiothoracic_ratio
from components.cohort.phantom.spec import Finding, PhantomStudy


@dataclass(frozen=True)
class Phrases:
    """Sentences without their full stop; `noun` completes "the previously seen ..."."""

    present: tuple[str, ...]
    short: tuple[str, ...]
    absent: tuple[str, ...]
    noun: str
    region: str


PHRASES: dict[str, Phrases] = {
    spec.MEDICAL_MATERIAL: Phrases(
        present=("{device}", "{device}, without evidence of malposition"),
        short=("{device_short}",),
        absent=(
            "No implanted device or surgical hardware",
            "No indwelling lines, tubes or implanted devices",
        ),
        noun="medical device",
        region="devices",
    ),
    spec.ARTERIAL_CALCIFICATION: Phrases(
        present=(
            "{Severity} calcified plaque is present along the wall of the {place}",
            "{Severity} atherosclerotic wall calcification of the {place}",
            "The {place} shows {severity} mural calcification",
        ),
        short=("{Severity} atherosclerotic calcification of the {place}", "Calcified {place}, {severity}"),
        absent=(
            "No atherosclerotic calcification of the aorta",
            "The aortic wall is free of calcified plaque",
        ),
        noun="aortic calcification",
        region="vessels",
    ),
    spec.CARDIOMEGALY: Phrases(
        present=(
            "The heart is {severely} enlarged, with a cardiothoracic ratio of {ctr}",
            "{Severity} cardiomegaly, transverse cardiac diameter {size}",
            "The cardiac silhouette is {severely} enlarged, measuring {size} in transverse diameter",
        ),
        short=("{Severity} cardiomegaly", "{Severely} enlarged heart"),
        absent=("The heart is normal in size", "Heart size is within normal limits", "No cardiomegaly"),
        noun="cardiomegaly",
        region="heart",
    ),
    spec.PERICARDIAL_EFFUSION: Phrases(
        present=(
            "There is a {severity} pericardial effusion measuring up to {size} in thickness",
            "{Severity} pericardial effusion, {size} in maximum thickness",
            "Pericardial fluid is present, up to {size} deep, in keeping with a {severity} pericardial effusion",
        ),
        short=("{Severity} pericardial effusion", "Pericardial effusion, {size}"),
        absent=("No pericardial effusion", "There is no pericardial fluid", "Pericardial effusion is absent"),
        noun="pericardial effusion",
        region="heart",
    ),
    spec.CORONARY_CALCIFICATION: Phrases(
        present=(
            "{Severity} {vessel} calcification",
            "There is {severity} calcification of the wall of the {artery}",
            "{Severity} calcified atheroma involves the {artery}",
        ),
        short=("{Severity} {vessel} calcification", "Calcific coronary artery disease, {severity}"),
        absent=("No coronary artery calcification", "The coronary arteries are free of calcification"),
        noun="coronary calcification",
        region="vessels",
    ),
    spec.HIATAL_HERNIA: Phrases(
        present=(
            "{Severity} hiatal hernia measuring {size}, with an air-fluid level",
            "A {severity} sliding hiatal hernia is seen behind the heart, {size} in diameter",
            "There is herniation of the stomach through the esophageal hiatus ({severity}, {size})",
        ),
        short=("{Severity} hiatal hernia", "Hiatal hernia, {size}"),
        absent=("No hiatal hernia", "There is no hiatal hernia"),
        noun="hiatal hernia",
        region="abdomen",
    ),
    spec.LYMPHADENOPATHY: Phrases(
        present=(
            "Enlarged {place} lymph nodes, the largest {size} in short axis",
            "There is {place} lymphadenopathy with nodes up to {size} in short axis",
            "Multiple {place} nodes are enlarged, up to {size}",
        ),
        short=("{Place} lymphadenopathy up to {size}", "Enlarged {place} lymph nodes"),
        absent=(
            "No enlarged mediastinal, hilar or axillary lymph nodes",
            "No lymphadenopathy by size criteria",
            "There is no thoracic lymphadenopathy",
        ),
        noun="lymphadenopathy",
        region="mediastinum",
    ),
    spec.EMPHYSEMA: Phrases(
        present=(
            "{Severity} {variant} emphysema {zone_in}",
            "There is {severity} {zone} {variant} emphysema",
            "{Variant} emphysematous change {zone_in}, {severity} in degree",
        ),
        short=("{Severity} {variant} emphysema", "Emphysema, {severity}, {zone}"),
        absent=("No emphysema", "No emphysematous change", "There is no evidence of emphysema"),
        noun="emphysema",
        region="lungs",
    ),
    spec.ATELECTASIS: Phrases(
        present=(
            "{Variant} atelectasis in the {place}, {size} in extent",
            "There is {variant} atelectasis of the {place} over {size}",
            "A {size} area of {variant} atelectasis is seen in the {place}",
        ),
        short=("{Variant} atelectasis, {place}", "{Place} atelectasis"),
        absent=("No atelectasis", "There is no atelectasis", "The lungs are fully expanded"),
        noun="atelectasis",
        region="lungs",
    ),
    spec.NODULE: Phrases(
        present=(
            "There is a {size} {variant} nodule in the {place}",
            "{Variant} pulmonary nodule in the {place} measuring {size}",
            "A {variant} nodule of {size} is seen in the {place}",
            "Within the {place}, a {variant} nodule measures {size}",
        ),
        short=("{size} {variant} nodule in the {place}", "{Place} nodule, {size}"),
        absent=(
            "No pulmonary nodule",
            "No suspicious lung nodules",
            "There are no pulmonary nodules or masses",
        ),
        noun="nodule",
        region="lungs",
    ),
    spec.OPACITY: Phrases(
        present=(
            "{Variant} ground-glass opacity in the {place}, {size}",
            "There is a {size} {variant} ground-glass opacity in the {place}",
            "{Variant} hazy opacity with preserved vascular markings in the {place}, {size} across",
        ),
        short=("{Variant} ground-glass opacity in the {place}", "{Place} ground-glass opacity"),
        absent=(
            "No ground-glass opacity",
            "There are no ground-glass opacities",
            "No hazy parenchymal opacity",
        ),
        noun="ground-glass opacity",
        region="lungs",
    ),
    spec.FIBROTIC_SEQUELA: Phrases(
        present=(
            "Fibrotic sequela with stellate bands in the {place}, {size}",
            "{Severity} fibrotic scarring with retracted strands and calcified foci in the {place}, {size} in extent",
            "Sequelae of prior infection with {severity} fibrotic bands in the {place} ({size})",
        ),
        short=("Fibrotic sequela, {place}", "{Severity} fibrotic scarring in the {place}"),
        absent=("No fibrotic change", "No parenchymal scarring", "There are no fibrotic bands"),
        noun="fibrotic sequela",
        region="lungs",
    ),
    spec.PLEURAL_EFFUSION: Phrases(
        present=(
            "{Severity} {effusion}, up to {size} in depth",
            "There {is} {a}{severity} {effusion}, measuring up to {size}",
            "{Severity} {effusion} layering dependently ({size})",
        ),
        short=("{Severity} {effusion}", "{Effusion}, {severity}"),
        absent=(
            "No pleural effusion",
            "There is no pleural effusion",
            "The pleural spaces are free of fluid",
        ),
        noun="pleural effusion",
        region="pleura",
    ),
    spec.MOSAIC: Phrases(
        present=(
            "{Severity} mosaic attenuation {zone_in}",
            "A mosaic attenuation pattern is present, {zone} and {severity} in degree",
            "Heterogeneous mosaic attenuation of the parenchyma, {severity} and {zone}",
        ),
        short=("{Severity} mosaic attenuation, {zone}", "Mosaic attenuation pattern, {zone}"),
        absent=("No mosaic attenuation", "Lung attenuation is homogeneous without a mosaic pattern"),
        noun="mosaic attenuation",
        region="lungs",
    ),
    spec.PERIBRONCHIAL: Phrases(
        present=(
            "{Severity} peribronchial thickening {in_side}",
            "There is {severity} bronchial wall thickening {in_side}",
            "Peribronchial cuffing {in_side}, {severity}",
        ),
        short=("{Severity} peribronchial thickening {in_side}", "Bronchial wall thickening {in_side}"),
        absent=("No peribronchial thickening", "The bronchial walls are not thickened"),
        noun="peribronchial thickening",
        region="airways",
    ),
    spec.CONSOLIDATION: Phrases(
        present=(
            "Airspace consolidation with air bronchograms in the {place}, {size}",
            "There is a {size} consolidation in the {place}",
            "The {place} contains a consolidation measuring {size} with air bronchograms",
        ),
        short=("{Place} consolidation", "Consolidation in the {place}, {size}"),
        absent=("No consolidation", "There is no airspace consolidation", "No focal consolidation"),
        noun="consolidation",
        region="lungs",
    ),
    spec.BRONCHIECTASIS: Phrases(
        present=(
            "{Severity} {variant} bronchiectasis in the {place}",
            "There is {severity} {variant} bronchiectasis of the {place}",
            "{Variant} dilatation of the airways of the {place}, in keeping with {severity} bronchiectasis",
        ),
        short=("{Variant} bronchiectasis, {place}", "{Place} bronchiectasis"),
        absent=("No bronchiectasis", "There is no bronchiectasis", "The airways taper normally"),
        noun="bronchiectasis",
        region="airways",
    ),
    spec.SEPTAL: Phrases(
        present=(
            "{Severity} interlobular septal thickening {in_zone}",
            "There is {severity} smooth thickening of the interlobular septa {in_zone}",
            "Reticular pattern of interlobular septal thickening {in_zone}, {severity}",
        ),
        short=("{Severity} interlobular septal thickening {in_zone}", "Interlobular septal thickening"),
        absent=("No interlobular septal thickening", "The interlobular septa are not thickened"),
        noun="interlobular septal thickening",
        region="lungs",
    ),
}
REGIONS = ("lungs", "airways", "pleura", "heart", "vessels", "mediastinum", "abdomen", "devices")
_DEVICES = {
    "pacemaker": (
        "Left chest wall pacemaker with leads ending in the right atrium and right ventricle",
        "Left-sided pacemaker",
    ),
    "port": (
        "Right chest wall port with its catheter tip in the superior vena cava",
        "Right chest port",
    ),
    "sternal wires": ("Median sternotomy wires are present", "Status post median sternotomy"),
    "spinal rods": (
        "Posterior spinal fixation hardware with rods and pedicle screws in the thoracic spine",
        "Thoracic spinal fixation hardware",
    ),
    "central venous catheter": (
        "Right-sided central venous catheter ends at the cavoatrial junction",
        "Right central venous catheter",
    ),
    "aortic valve": ("A prosthetic aortic valve is present", "Prosthetic aortic valve"),
}
_ZONE = {"upper": "upper lobe predominant", "lower": "lower lobe predominant", "diffuse": "diffuse"}
_ZONE_IN = {
    "upper": "in the upper lung zones",
    "lower": "in the lower lung zones",
    "diffuse": "throughout both lungs",
}


def measure(size_mm: float, centimetres: bool) -> str:
    """A size as a report writes it."""
    return f"{size_mm / 10:.1f} cm" if centimetres else f"{size_mm:.0f} mm"


def fields(study: PhantomStudy, item: Finding, centimetres: bool) -> dict[str, str]:
    """What fills a phrase's braces, in lower case and (capitalised key) with a capital."""
    both = item.side == "bilateral"
    place, severity = item.place, item.severity
    if item.label == spec.PLEURAL_EFFUSION:
        effusion = "bilateral pleural effusions" if both else f"{item.side} pleural effusion"
    else:
        effusion = ""
    device, device_short = _DEVICES.get(item.variant, ("", ""))
    known = {
        "place": place,
        "severity": severity,
        "severely": severity + "ly",
        "variant": item.variant,
        "size": measure(item.size_mm, centimetres),
        "ctr": f"{cardiothoracic_ratio(study):.2f}" if item.label == spec.CARDIOMEGALY else "",
        "artery": "coronary arteries in a three-vessel distribution"
        if place == "three-vessel"
        else f"{place} coronary artery".replace("coronary coronary", "coronary"),
        "vessel": "three-vessel coronary artery"
        if place == "three-vessel"
        else f"{place} coronary artery".replace("coronary coronary", "coronary"),
        "zone": _ZONE.get(place, ""),
        "zone_in": _ZONE_IN.get(place, ""),
        "in_side": "in both lungs" if both else f"in the {item.side} lung",
        "in_zone": f"in both {place} lung zones" if both else f"in the {item.side} {place} lung zone",
        "effusion": effusion,
        "is": "are" if both else "is",
        "a": "" if both else "a ",
        "device": device,
        "device_short": device_short,
    }
    return known | {key.capitalize(): value[:1].upper() + value[1:] for key, value in known.items()}


def fill(phrase: str, values: dict[str, str]) -> str:
    """A phrase with its fields, beginning with a capital."""
    text = phrase.format_map(values)
    return text[:1].upper() + text[1:]


def comparison(item: Finding, prior: str, rng: np.random.Generator, centimetres: bool) -> str:
    """A clause about change since the previous study, or an empty string; `prior` is the date as text."""
    if item.change == "unchanged":
        options = (f", unchanged from {prior}", f", stable since {prior}", ", unchanged from the prior study")
    elif item.change == "new":
        options = (f", new since {prior}", f", not present on {prior}", ", new from the prior study")
    elif item.change in ("increased", "decreased"):
        before = measure(item.previous_mm, centimetres)
        options = (
            f", {item.change} from {before} on {prior}",
            f", previously {before} on {prior}",
            f", {item.change} compared to the prior CT of {prior}",
        )
    else:
        return ""
    return options[int(rng.integers(len(options)))]
