"""What an implementation of VELVET-Med and of COLIPRI must contain of samples, ingestion and reports.

The numbers are those of the description of both methods, as in test_methods_requirements.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.base.config import load_params, parse, with_preset
from components.volumes.contract import Contract
from tests.conftest import ROOT


def test_4_1_2_a_sample_has_a_random_local_crop_and_a_squeezed_whole_volume() -> None:
    from components.pretraining.data import StudyDataset
    from components.pretraining.schedule import Draw
    from components.pretraining.settings import Augment
    from components.pretraining.studies import Study

    values = with_preset(load_params(ROOT / "params.yaml"), "velvet")
    contract = parse(Contract, values["preprocess"]["contract"], "contract")
    assert (contract.size, contract.view) == ((96, 96, 96), "area")
    assert values["pretrain"]["crop_size"] == [96, 96, 96]
    small = contract.model_copy(update={"size": (8, 8, 8)})
    hu = np.broadcast_to((np.arange(20) * 40 - 400).astype(np.int16), (24, 16, 20)).copy()
    hu[12:] += 100

    class Kept:
        def shape(self, series: str) -> tuple[int, ...]:
            return hu.shape

        def read(self, series: str) -> np.ndarray:
            return hu

        def masks(self, series: str) -> dict:
            return {}

        def read_mask(self, series: str, name: str) -> np.ndarray:
            raise AssertionError

    study = Study("stu_0", "pat_0", ("ser_0",), ("A sentence.",), "synthetic")
    augment = parse(Augment, values["pretrain"]["augment"], "augment")
    data = StudyDataset([study], Kept(), small, (8, 8, 8), 3, augment)
    items = [data[Draw(0, epoch, 0)] for epoch in range(6)]
    assert all(item["volume"].shape == item["crop"].shape == (1, 8, 8, 8) for item in items)
    levels = np.rint(np.linspace(0, 19, 8)) * 40 - 400  # slices spread evenly over all 20, the plane by area
    low, high = small.hu_window
    wanted = (levels[None, :] + np.array([[0.0], [100.0]]) - low) / (high - low)
    for item in items:
        np.testing.assert_allclose(item["volume"][0][[0, -1], 3], wanted, atol=1e-4)
    assert len({item["crop"].tobytes() for item in items}) > 1, "another crop every epoch"
    for item in items:
        steps = np.diff(item["crop"][0], axis=2) * (high - low)
        np.testing.assert_allclose(steps, 40, atol=0.01)  # neighbouring slices at their own spacing


def test_4_1_8_m3d_cap_is_read_filtered_by_depth_and_split_by_study(tmp_path: Path) -> None:
    from components.cohort.sources.m3d_cap import M3dCap
    from components.cohort.study import RawSeries
    from tests.data.test_cohort_m3d_cap import make_series

    case = tmp_path / "ct_case" / "000001" / "Study_1"
    for name, depth in (("first", 48), ("second", 60), ("thin", 47)):
        make_series(case / name, depth)
    (case / "text.txt").write_text("study_findings: A nodule.")
    found = list(M3dCap(M3dCap.Params(), tmp_path, 0).series())
    kept = [item for item in found if isinstance(item, RawSeries)]
    assert [item.series.rpartition("/")[2] for item in kept] == ["first", "second"]
    assert [item.rule for item in found if item not in kept] == ["left_out.depth"]
    assert {item.report for item in kept} == {"study_findings: A nodule."}
    assert len({(item.patient, item.study) for item in kept}) == 1, (
        "one study: the split cannot part its series"
    )


def test_4_2_5_reports_become_regions_with_positive_and_negative_findings() -> None:
    from components.reports.structured import structured_reports, structured_rows

    said = [
        "There is a small left pleural effusion.",
        "No pneumothorax.",
        "The heart is enlarged, but there is no pericardial effusion.",
    ]
    rows = [
        {"section": "findings", "order": at, "start": 60 * at, "end": 60 * at + len(text), "text": text}
        | {"polarity": None, "region": None}
        for at, text in enumerate(said)
    ]
    for row in rows:
        from components.reports.findings import polarity, region

        row |= {"polarity": polarity(row["text"]), "region": region(row["text"])}
    found = structured_reports(structured_rows("stu_0", rows, []))["stu_0"]
    assert {name: (len(part["positive"]), len(part["negative"])) for name, part in found.items()} == {
        "pleura": (1, 1),
        "heart": (1, 1),
    }
    assert found["pleura"]["negative"] == ["No pneumothorax."]
    assert found["heart"]["positive"] == ["The heart is enlarged."]


def test_4_2_5_sentences_are_shuffled_and_shortened_without_another_meaning() -> None:
    from components.reports.augment import augmented, shortened

    said = [
        "There is a nodule, measuring 4 mm.",
        "No pleural effusion.",
        "The heart is normal.",
        "Old fracture.",
    ]
    assert shortened(said[0]) == "There is a nodule."
    assert shortened(said[1]) == said[1]
    orders, lengths = set(), set()
    for seed in range(40):
        made = augmented(said, np.random.default_rng(seed), shuffle=0.5, shorten=0.5, least=0.5)
        assert set(made) <= {*said, "There is a nodule."}
        orders.add(
            tuple(made)
            == tuple(sorted(made, key=lambda text: [shortened(x) for x in said].index(shortened(text))))
        )
        lengths.add(len(made))
    assert orders == {True, False}
    assert lengths == {2, 3, 4}
    block = with_preset(load_params(ROOT / "params.yaml"), "colipri")["pretrain"]["augment"]
    assert block["shuffle_sentences"] > 0
    assert block["shorten_sentences"] > 0
