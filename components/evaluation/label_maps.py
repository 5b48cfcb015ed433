"""Label maps as versioned data: another cohort's labels as the classes that a model knows, for external evaluation.

A class is present where any of its labels is, absent where one is known and none is present. Where a class stands for
several of the model's (`merged`), its score is the highest of theirs. Sources: RAD-ChestCT (Draelos et al. 2021,
arXiv:2002.04752) has 83 abnormalities at 51 places (columns `ABNORMALITY*PLACE`); CT-RATE (arXiv:2403.17834) 18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from components.base.errors import ConfigError
from components.evaluation.prompts import in_words

Known = Mapping[str, Mapping[str, int]]

CT_RATE_18 = (
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
)
"""The findings of CT-RATE, as its label table names them."""
_SHARED: Mapping[str, tuple[str, ...]] = {
    "Cardiomegaly": ("cardiomegaly",),
    "Pericardial effusion": ("pericardial_effusion",),
    "Hiatal hernia": ("hernia",),
    "Lymphadenopathy": ("lymphadenopathy",),
    "Emphysema": ("emphysema",),
    "Atelectasis": ("atelectasis",),
    "Lung opacity": ("opacity",),
    "Pleural effusion": ("pleural_effusion",),
    "Peribronchial thickening": ("bronchial_wall_thickening",),
    "Consolidation": ("consolidation",),
    "Bronchiectasis": ("bronchiectasis",),
    "Interlobular septal thickening": ("septal_thickening",),
}
"""What both public maps of RAD-ChestCT agree in."""
_DEVICES = (
    "breast_implant",
    "catheter_or_port",
    "chest_tube",
    "clip",
    "gi_tube",
    "hardware",
    "pacemaker_or_defib",
    "staple",
    "stent",
    "suture",
    "tracheal_tube",
)


@dataclass(frozen=True)
class LabelMap:
    """Classes of a model by labels of a cohort; `merged` names classes that stand for several of the model's."""

    name: str
    source: str
    classes: Mapping[str, tuple[str, ...]]
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def labels(self, known: Known) -> dict[str, dict[str, int]]:
        """Class -> study -> 1 or 0 from a cohort's labels; a class without any of its labels is left out.

        Names are compared in words, so that `Hernia` and `hernia` are one.
        """
        by_words = {in_words(name): values for name, values in known.items()}
        found: dict[str, dict[str, int]] = {}
        for name, parts in self.classes.items():
            values: dict[str, int] = {}
            for part in parts:
                for study, value in by_words.get(in_words(part), {}).items():
                    values[study] = max(value, values.get(study, 0))
            if values:
                found[name] = values
        if not found:
            raise ConfigError(
                f"the cohort has none of the labels of the map {self.name!r}",
                rule="label_map.empty",
                fix="take the cohort's label columns in (`binary_columns` of nifti_csv), or use no label_map",
            )
        return found

    def parts(self, name: str) -> tuple[str, ...]:
        """The model's classes whose scores make the score of `name`."""
        return self.merged.get(name, (name,))


LABEL_MAPS: dict[str, LabelMap] = {
    entry.name: entry
    for entry in (
        LabelMap(
            "radchestct-standard",
            "RadFinder, radchestct_to_ctrate18_standard.json: 17 of CT-RATE's findings, without mosaic attenuation; "
            "calcification stands for both calcifications, eleven devices for medical material",
            {
                "Medical material": _DEVICES,
                "Arterial wall calcification": ("calcification",),
                "Coronary artery wall calcification": ("calcification",),
                "Lung nodule": ("nodule", "nodulegr1cm"),
                "Pulmonary fibrotic sequela": ("scarring",),
                **_SHARED,
            },
        ),
        LabelMap(
            "radchestct-16",
            "DALE-CT, public code: 16 classes; one calcification in place of two, scored by the higher of both; "
            "hardware alone for medical material, fibrosis for fibrotic sequela",
            {
                "Medical material": ("hardware",),
                "Calcification": ("calcification", "coronary_artery_disease"),
                "Lung nodule": ("nodule",),
                "Pulmonary fibrotic sequela": ("fibrosis",),
                **_SHARED,
            },
            merged={"Calcification": ("Arterial wall calcification", "Coronary artery wall calcification")},
        ),
    )
}


def label_map(name: str) -> LabelMap:
    """The map called `name`; an unknown name is a `ConfigError`."""
    if name not in LABEL_MAPS:
        raise ConfigError(
            f"there is no label map called {name!r}",
            rule="label_map.unknown",
            fix=f"use one of: {', '.join(sorted(LABEL_MAPS))}",
        )
    return LABEL_MAPS[name]


def mapped(known: Known, name: str | None) -> dict[str, dict[str, int]]:
    """A cohort's labels through the map called `name`; as they are without one."""
    if name is None:
        return {label: dict(values) for label, values in known.items()}
    return label_map(name).labels(known)


def merged_column(
    wanted: str,
    names: Sequence[str],
    logits: npt.NDArray[np.float64],
    thresholds: Sequence[float | None],
    name: str | None,
) -> tuple[npt.NDArray[np.float64], float | None] | None:
    """The logits [n] of a class from a probe's [n, L] and its threshold; None where the probe lacks it.

    Without a map names must be equal. A class that is merged of several has no threshold: it has one each.
    """
    if name is None:
        columns = [at for at, own in enumerate(names) if own == wanted]
    else:
        words = {in_words(own): at for at, own in enumerate(names)}
        parts = (wanted,) if in_words(wanted) in words else label_map(name).parts(wanted)
        columns = [words[in_words(part)] for part in parts if in_words(part) in words]
    if not columns:
        return None
    return logits[:, columns].max(1), thresholds[columns[0]] if len(columns) == 1 else None
