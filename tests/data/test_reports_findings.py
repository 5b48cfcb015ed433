"""Findings: negation and uncertainty on traps, the 18 labels, polarity, region, and opposite sentences."""

from __future__ import annotations

import pytest

from components.reports.findings import labels, laterality, mentions, polarity, region, strongest
from components.reports.negation import affirm, negate, opposite
from components.reports.section import analyse

P, A, U = "present", "absent", "uncertain"
TRAPS = [
    ("No pleural effusion.", "Pleural effusion", A),
    ("There is a small left pleural effusion.", "Pleural effusion", P),
    ("Pleural effusion is not seen.", "Pleural effusion", A),
    ("No change in the small pleural effusion.", "Pleural effusion", P),
    ("No significant interval change in pleural effusion.", "Pleural effusion", P),
    ("Cannot exclude a small pleural effusion.", "Pleural effusion", U),
    ("Pleural effusion cannot be excluded.", "Pleural effusion", U),
    ("Possible small pleural effusion.", "Pleural effusion", U),
    ("No evidence of consolidation or pleural effusion.", "Pleural effusion", A),
    ("No consolidation, but a small pleural effusion is seen.", "Pleural effusion", P),
    ("No consolidation; pleural effusion on the right.", "Pleural effusion", P),
    ("Without pleural effusion.", "Pleural effusion", A),
    ("Pleural effusion has resolved.", "Pleural effusion", A),
    ("Resolved pleural effusion.", "Pleural effusion", A),
    ("Negative for consolidation.", "Consolidation", A),
    ("Neither consolidation nor nodule is seen.", "Lung nodule", A),
    ("Atelectasis versus consolidation.", "Consolidation", U),
    ("Atelectasis rather than consolidation.", "Consolidation", A),
    ("Atelectasis versus consolidation.", "Atelectasis", U),
    ("Opacity suspicious for consolidation.", "Consolidation", U),
    ("Opacity suspicious for consolidation.", "Lung opacity", P),
    ("The lungs are free of consolidation.", "Consolidation", A),
    ("Absence of consolidation.", "Consolidation", A),
    ("Not only consolidation but also nodules are present.", "Consolidation", P),
    ("No nodule is identified, and there is mild atelectasis.", "Atelectasis", P),
    ("No nodule and mild atelectasis in the bases.", "Atelectasis", P),
    ("No focal consolidation, large effusion, or atelectasis.", "Atelectasis", A),
    ("The previously seen nodule is no longer visible.", "Lung nodule", A),
    ("The nodule is unchanged without growth.", "Lung nodule", P),
    ("A nodule not present on the prior study.", "Lung nodule", P),
    ("A nodule is seen, not present on [DATE].", "Lung nodule", P),
    ("Nodule may represent scar.", "Pulmonary fibrotic sequela", U),
    ("Nodule may represent scar.", "Lung nodule", P),
    ("Nodules: none.", "Lung nodule", A),
    ("No new nodule.", "Lung nodule", A),
    ("There is no nodule other than the calcified granulomatous nodule.", "Lung nodule", P),
    ("Emphysema without bullae.", "Emphysema", P),
    ("Subcutaneous emphysema along the chest wall.", "Emphysema", None),
    ("No emphysematous change.", "Emphysema", A),
    ("Heart size is normal.", "Cardiomegaly", A),
    ("The heart is not enlarged.", "Cardiomegaly", A),
    ("The heart is mildly enlarged.", "Cardiomegaly", P),
    ("Cardiomegaly.", "Cardiomegaly", P),
    ("No pleural or pericardial effusion.", "Pericardial effusion", A),
    ("No pleural or pericardial effusion.", "Pleural effusion", A),
    ("Pericardial and pleural effusions are present.", "Pericardial effusion", P),
    ("No lymphadenopathy by size criteria.", "Lymphadenopathy", A),
    ("No enlarged mediastinal, hilar or axillary lymph nodes.", "Lymphadenopathy", A),
    ("Enlarged right hilar lymph node.", "Lymphadenopathy", P),
    ("Thyroid nodule.", "Lung nodule", None),
    ("Adrenal nodule of 2 cm.", "Lung nodule", None),
    ("The coronary arteries are free of calcification.", "Coronary artery wall calcification", A),
    ("Calcified plaque in the aorta and coronary arteries.", "Coronary artery wall calcification", P),
    ("Calcified plaque in the aorta and coronary arteries.", "Arterial wall calcification", P),
    ("Coronary artery calcification.", "Arterial wall calcification", None),
    ("Hiatal hernia is suspected.", "Hiatal hernia", U),
    ("No hiatal hernia.", "Hiatal hernia", A),
    ("The interlobular septa are not thickened.", "Interlobular septal thickening", A),
    ("Bronchial wall thickening is present.", "Peribronchial thickening", P),
    ("Mosaic attenuation is unlikely.", "Mosaic attenuation pattern", U),
    ("A pacemaker is in place.", "Medical material", P),
    ("The central venous catheter has been removed.", "Medical material", A),
    ("Findings likely due to atelectasis.", "Atelectasis", P),
    ("? consolidation in the left base", "Consolidation", U),
    ("Bronchiectasis, if present, is mild.", "Bronchiectasis", P),
    ("NO PLEURAL EFFUSION", "Pleural effusion", A),
    ("Honeycombing is absent.", "Pulmonary fibrotic sequela", A),
    ("No consolidation is\nseen.", "Consolidation", A),
]


def _status(sentence: str, label: str) -> str | None:
    return next((mention.status for mention in mentions(sentence) if mention.finding == label), None)


def test_negation_traps() -> None:
    wrong = [
        (sentence, label, wanted, _status(sentence, label))
        for sentence, label, wanted in TRAPS
        if _status(sentence, label) != wanted
    ]
    assert len(TRAPS) >= 60
    assert 1 - len(wrong) / len(TRAPS) >= 0.95, wrong


def test_the_labels_are_ct_rates() -> None:
    assert labels() == (
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


def test_the_strongest_status_wins_and_points_at_its_first_sentence() -> None:
    assert strongest([("absent", 3), ("present", 5), ("present", 9)]) == ("present", 5)
    assert strongest([("absent", 3), ("uncertain", 4)]) == ("uncertain", 4)
    assert strongest([]) == ("not_mentioned", None)


def test_indication_does_not_state_findings() -> None:
    rows = analyse(
        "stu_1",
        "INDICATION: Rule out pleural effusion.\nFINDINGS: The left lower lobe shows "
        "atelectasis.\nIMPRESSION: Atelectasis.",
        ("findings", "impression"),
    )
    found = {row["finding"]: row for row in rows["findings"]}
    assert found["Pleural effusion"]["status"] == "not_mentioned"
    assert (found["Atelectasis"]["status"], found["Atelectasis"]["laterality"]) == ("present", "left")
    order = found["Atelectasis"]["sentence_order"]
    assert next(row["text"] for row in rows["sentences"] if row["order"] == order).startswith(
        "The left lower lobe"
    )
    assert len({row["order"] for row in rows["sentences"]}) == len(rows["sentences"])


@pytest.mark.parametrize(
    ("sentence", "side", "place", "sign"),
    [
        ("Small left pleural effusion.", "left", "pleura", "positive"),
        ("No pneumothorax.", "", "pleura", "negative"),
        ("Bilateral lower lobe atelectasis.", "bilateral", "lungs", "positive"),
        ("The liver is unremarkable.", "", "abdomen", "negative"),
        ("The femoral head and proximal femur are visible.", "", "bones", "neutral"),
        ("The lungs are clear.", "", "lungs", "negative"),
        ("There is a large soft-tissue mass in the left thigh.", "left", "soft_tissue", "positive"),
        ("No gas is seen within the mass.", "", "other", "positive"),
        ("The left and right kidneys are normal.", "bilateral", "abdomen", "negative"),
        ("Follow-up is recommended.", "", "other", "neutral"),
    ],
)
def test_side_region_polarity(sentence: str, side: str, place: str, sign: str) -> None:
    assert laterality(sentence) == side
    assert region(sentence) == place
    assert polarity(sentence) == sign


@pytest.mark.parametrize(
    ("sentence", "denied"),
    [
        ("There is a small effusion.", "There is no small effusion."),
        ("There are nodules in both lungs.", "There are no nodules in both lungs."),
        ("The heart is enlarged.", "The heart is not enlarged."),
        ("The aorta appears dilated.", "The aorta does not appear dilated."),
        ("The scan shows edema.", "No the scan shows edema."),
        ("A nodule is seen in the left lung.", "No nodule is present in the left lung."),
        ("Mild atelectasis.", "No mild atelectasis."),
        ("2. Hiatal hernia is present.", "No hiatal hernia is present."),
        ("CT-guided biopsy scar", "No CT-guided biopsy scar."),
        ("The liver demonstrates steatosis.", "The liver does not demonstrate steatosis."),
    ],
)
def test_negate(sentence: str, denied: str) -> None:
    wanted = "The scan does not show edema." if "scan shows" in sentence else denied
    assert negate(sentence) == wanted
    assert negate(sentence) != sentence


@pytest.mark.parametrize(
    ("sentence", "affirmed"),
    [
        ("There is no pleural effusion.", "There is pleural effusion."),
        ("No nodule is seen.", "Nodule is present."),
        ("No evidence of emphysema.", "Emphysema is present."),
        ("The heart is not enlarged.", "The heart is enlarged."),
        ("The aorta does not appear dilated.", "The aorta appears dilated."),
        ("No atelectasis.", "Atelectasis is present."),
    ],
)
def test_affirm(sentence: str, affirmed: str) -> None:
    assert affirm(sentence) == affirmed
    assert opposite(sentence, "negative") == affirmed
    assert opposite(affirmed, "positive") == negate(affirmed)


def test_negate_never_returns_its_input() -> None:
    for sentence in ("No effusion.", "No.", "x", "There is no mass.", "No x."):
        assert negate(sentence) != sentence
        assert affirm(sentence) != sentence
    assert negate("") == ""
    assert affirm(" ") == " "


def test_phantom_reports_say_what_was_drawn() -> None:
    from components.cohort.phantom.report import write_report
    from components.cohort.phantom.sampling import PhantomParams, cohort

    right = total = 0
    for study in cohort(PhantomParams(num_patients=30), 5):
        text, _ = write_report(study)
        present = {finding.label for finding in study.findings}
        for row in analyse("stu_1", text, ("findings", "impression"))["findings"]:
            total += 1
            right += (row["status"] in ("present", "uncertain")) == (row["finding"] in present)
    assert total > 500
    assert right / total >= 0.99


@pytest.mark.parametrize(
    ("sentence", "finding", "status", "side"),
    [
        # a doubt of its nature is none of the finding
        ("Likely benign nodule in the right lower lobe.", "Lung nodule", P, "right"),
        ("The consolidation is likely infectious.", "Consolidation", P, ""),
        ("The consolidation is likely at the left base.", "Consolidation", U, "left"),
        # nor is one of another thing, of a property, or what is advised
        ("Consolidation, malignancy cannot be excluded.", "Consolidation", P, ""),
        ("Nodule growth is suspected.", "Lung nodule", P, ""),
        ("Biopsy should be considered for the dominant nodule.", "Lung nodule", P, ""),
        ("If consolidation does not clear, CT is recommended.", "Consolidation", P, ""),
        ("No complication of pacemaker placement.", "Medical material", P, ""),
        # `no change` is no denial, `no consolidative change` is one
        ("No change in the consolidation.", "Consolidation", P, ""),
        ("No consolidative change.", "Consolidation", A, ""),
        ("No enlargement of the heart.", "Cardiomegaly", A, ""),
        # what has gone on one side only, and the sides of every mention
        ("Opacities on the right have cleared; those on the left persist.", "Lung opacity", P, "left"),
        ("Left pleural effusion, resolved on the right.", "Pleural effusion", P, "left"),
        ("Right nodule is new; left nodule is unchanged.", "Lung nodule", P, "bilateral"),
        (
            "The right chest tube has been removed and the left chest tube is in place.",
            "Medical material",
            P,
            "left",
        ),
        # a sign is there, its name is doubted
        ("Subtle reticulation, suspicious for fibrosis.", "Pulmonary fibrotic sequela", U, ""),
        ("Subpleural reticulation without honeycombing.", "Pulmonary fibrotic sequela", P, ""),
        # sentences that were not split end a scope
        ("No consolidation. Trace effusion.", "Pleural effusion", P, ""),
    ],
)
def test_scopes(sentence: str, finding: str, status: str, side: str) -> None:
    found = {item.finding: item for item in mentions(sentence)}
    assert (found[finding].status, found[finding].laterality) == (status, side)


def test_long_sentences_take_linear_time() -> None:
    from time import process_time

    words = "no change in the left and right, possible, small, which may be due to the "
    spent = []
    for times in (20, 200):
        started = process_time()
        mentions(words * times + "consolidation could not be excluded")
        spent.append(process_time() - started)
    assert spent[1] < 60 * spent[0] + 0.5
