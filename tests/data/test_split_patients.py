"""The split: patients on one side, fractions, likeness, and every kind of planted leak."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.base.config import parse
from components.base.errors import CheckError, ConfigError, InputError
from components.base.files import read_table, write_table
from components.base.step import StepContext
from components.cohort import split
from components.cohort.leaks import find_leaks, leaks_between, report_texts, require_no_leaks
from components.cohort.manifest import read_rows, write_rows
from components.cohort.similarity import (
    Similarity,
    jaccard,
    near_pairs,
    normalise,
    report_pairs,
    shingles,
    simhash,
    volume_pairs,
)

LIMITS = Similarity()
SITES = ["upper lobe", "lower lobe", "middle lobe", "lingula", "hilum", "apex"]
FINDINGS = [
    "nodule",
    "effusion",
    "consolidation",
    "atelectasis",
    "emphysema",
    "cardiomegaly",
    "hernia",
    "cyst",
]


def key(kind: str, number: int) -> str:
    return f"{kind}_{number:016x}"


def report(number: int) -> str:
    """A templated report: the same phrases, other findings, sides, sizes and order."""
    generator = np.random.default_rng(number)
    lines = []
    for name in generator.permutation(FINDINGS):
        side, site = generator.choice(["left", "right"]), generator.choice(SITES)
        if generator.random() < 0.5:
            lines.append(f"There is a {generator.integers(3, 60)} mm {name} in the {side} {site}.")
        else:
            lines.append(f"No {name} is seen in the {side} {site}.")
    return "FINDINGS:\n" + " ".join(lines) + "\nIMPRESSION:\n" + lines[0]


def volume_hash(number: int, flips: int = 0) -> str:
    generator = np.random.default_rng(1000 + number)
    bits = generator.integers(0, 2, 2048)
    bits[:flips] ^= 1
    return np.packbits(bits).tobytes().hex()


def tables(patients: int, *, studies: int = 2, image_only: set[int] = frozenset()) -> dict[str, list[dict]]:
    """Rows as split reads them: `studies` studies a patient, `image_only` patients without a report."""
    rows, index, reports, sections = [], [], [], []
    for patient in range(patients):
        for visit in range(studies):
            number = patient * 10 + visit
            ids = {
                "study_key": key("stu", number),
                "patient_key": key("pat", patient),
                "series_key": key("ser", number),
            }
            paired = patient not in image_only
            rows.append({**ids, "provenance": "synthetic", "paired": paired})
            index.append({**ids, "content_sha256": f"{number:064x}", "average_hash": volume_hash(number)})
            if paired:
                text = report(number)
                reports.append({"study_key": ids["study_key"], "text": text})
                at = text.index("IMPRESSION")
                for order, (name, part) in enumerate(
                    [("findings", text[10:at]), ("impression", text[at + 12 :])]
                ):
                    sections.append(
                        {"study_key": ids["study_key"], "order": order, "name": name, "text": part}
                    )
    return {"rows": rows, "index": index, "reports": reports, "sections": sections}


def divide(made: dict[str, list[dict]], params: split.Params | None = None, labels=None) -> list[dict]:
    params = params or split.Params()
    index = {row["series_key"]: row for row in made["index"]}
    texts = report_texts(made["reports"], made["sections"])
    groups, _ = split.group_patients(made["rows"], index, texts, params.similarity)
    sides = split.make_split(made["rows"], groups, labels or {}, params)
    return [{**row, "split": sides[row["patient_key"]]} for row in made["rows"]]


def patients_of(table: list[dict], name: str) -> set[str]:
    return {row["patient_key"] for row in table if row["split"] == name}


def leaks_of(table: list[dict], made: dict[str, list[dict]], **more) -> list:
    return leaks_between(
        table, made["index"], report_texts(made["reports"], made["sections"]), LIMITS, **more
    )


def test_fractions_determinism_and_no_leak() -> None:
    made = tables(40)
    table = divide(made)
    sizes = {name: len(patients_of(table, name)) for name in split.SPLITS}
    assert sizes == {"train": 28, "validation": 4, "test": 8}
    assert leaks_of(table, made) == []
    shuffled = {**made, "rows": made["rows"][::-1], "index": made["index"][::-1]}
    assert sorted(divide(shuffled), key=str) == sorted(table, key=str)
    other = divide(made, split.Params(seed=8))
    assert patients_of(other, "test") != patients_of(table, "test")


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 60), st.integers(0, 3), st.integers(0, 2**31))
def test_every_patient_has_one_side_and_every_split_someone(patients: int, images: int, seed: int) -> None:
    made = tables(patients, studies=1, image_only=set(range(min(images, patients - 3))))
    table = divide(made, split.Params(seed=seed))
    sides = Counter(row["patient_key"] for row in {(r["patient_key"], r["split"]): r for r in table}.values())
    assert set(sides.values()) == {1}
    assert all(patients_of(table, name) for name in split.SPLITS)


@pytest.mark.parametrize("patients", [10, 13])
def test_folds_test_every_patient_once_and_validate_on_the_next_part(patients: int) -> None:
    made = tables(patients)
    folds = [divide(made, split.Params(seed=3, fold=split.Fold(index=index, count=5))) for index in range(5)]
    tested = [patients_of(table, "test") for table in folds]
    assert sorted(key for side in tested for key in side) == sorted(
        {key("pat", at) for at in range(patients)}
    )
    for index, table in enumerate(folds):
        assert patients_of(table, "validation") == tested[(index + 1) % 5]
        assert not patients_of(table, "train") & (
            patients_of(table, "test") | patients_of(table, "validation")
        )
        assert leaks_of(table, made) == []


def test_a_fold_outside_its_count_is_refused() -> None:
    with pytest.raises(ConfigError, match="index must be below count"):
        parse(split.Params, {"fold": {"index": 5, "count": 5}}, "split")
    with pytest.raises(InputError, match="split"):
        divide(tables(3), split.Params(fold=split.Fold(index=3, count=5)))


def test_image_only_patients_train() -> None:
    made = tables(30, image_only=set(range(10)))
    table = divide(made)
    assert {key("pat", n) for n in range(10)} <= patients_of(table, "train")
    assert all(row["paired"] for row in table if row["split"] != "train")
    assert len(patients_of(table, "test")) == 4  # a fifth of the twenty with a report


def test_a_cohort_of_images_alone_is_divided_too() -> None:
    table = divide(tables(20, image_only=set(range(20))))
    assert len(patients_of(table, "test")) == 4


def test_labels_are_spread() -> None:
    made = tables(60, studies=1)
    rare = {key("stu", patient * 10): {"hernia"} for patient in range(0, 60, 6)}
    for seed in range(5):
        table = divide(made, split.Params(seed=seed), rare)
        with_label = Counter(row["split"] for row in table if row["study_key"] in rare)
        assert with_label["test"] == 2
        assert with_label["validation"] == 1


def test_too_few_patients_and_bad_fractions() -> None:
    with pytest.raises(InputError, match=r"split\.too_few"):
        divide(tables(2))
    with pytest.raises(InputError, match=r"split\.too_few"):
        divide(tables(12), split.Params(min_patients=5))
    from components.base.config import parse

    with pytest.raises(ConfigError):
        parse(split.Params, {"fractions": {"train": 0.9, "validation": 0.2, "test": 0.2}}, "split")


def test_copied_reports_and_volumes_stay_together() -> None:
    for seed in range(6):
        made = tables(30, studies=1)
        made["reports"][7]["text"] = made["reports"][3]["text"]
        made["sections"][14]["text"] = made["sections"][6]["text"]
        made["sections"][15]["text"] = made["sections"][7]["text"]
        made["index"][20]["average_hash"] = volume_hash(110, flips=10)  # near patient 11's
        table = divide(made, split.Params(seed=seed))
        side = {row["patient_key"]: row["split"] for row in table}
        assert side[key("pat", 7)] == side[key("pat", 3)]
        assert side[key("pat", 20)] == side[key("pat", 11)]
        assert leaks_of(table, made) == []


def test_a_group_that_swallows_the_cohort_is_an_error() -> None:
    made = tables(20, studies=1)
    for row in made["sections"]:
        row["text"] = "The lungs are clear. " * 5
    with pytest.raises(CheckError, match=r"split\.group"):
        divide(made)


def test_templated_reports_do_not_collapse() -> None:
    texts = {key("stu", number): report(number) for number in range(300)}
    assert report_pairs(texts, LIMITS) == []


def test_likeness_of_reports() -> None:
    words = " ".join(report(number) for number in range(6))
    near = words.replace("FINDINGS:", "Findings -", 1).replace("mm", "MM")
    assert report_pairs({"a": words, "b": near}, LIMITS) == [("a", "b")]
    tagged = words.replace("There is", "[DATE] There is")
    assert report_pairs({"a": words, "b": tagged}, LIMITS) == [("a", "b")]
    edited = words.replace("nodule", "mass", 1)
    assert report_pairs({"a": words, "b": edited}, LIMITS) == [("a", "b")]
    assert report_pairs({"a": words, "b": report(99)}, LIMITS) == []
    assert report_pairs({"a": "Normal chest.", "b": "normal CHEST"}, LIMITS) == [("a", "b")]
    assert report_pairs({"a": "Normal chest.", "b": "Normal abdomen."}, LIMITS) == []
    assert report_pairs({"a": "", "b": "..."}, LIMITS) == []
    assert normalise("A 1.2 cm [DATE] Nodule.") == ["a", "1.2", "cm", "nodule"]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40))
def test_near_pairs_are_all_pairs(values: list[int]) -> None:
    codes = np.array([[value] for value in values], dtype=np.uint64)
    expected = [
        (i, j)
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if (values[i] ^ values[j]).bit_count() <= 30
    ]
    assert near_pairs(codes, 30) == expected


def test_simhash_and_jaccard() -> None:
    items = shingles(normalise(report(1)))
    assert simhash(items) == simhash(frozenset(sorted(items)))
    assert jaccard(items, items) == 1.0
    assert (simhash(items) ^ simhash(shingles(normalise(report(2))))).bit_count() > 8


def test_volume_pairs() -> None:
    hashes = {
        "a": volume_hash(1),
        "b": volume_hash(1, flips=24),
        "c": volume_hash(1, flips=25),
        "d": volume_hash(2),
    }
    assert volume_pairs(hashes, LIMITS) == [("a", "b"), ("b", "c")]
    assert volume_pairs({}, LIMITS) == []


def plant(kind: str, table: list[dict], made: dict[str, list[dict]]) -> dict:
    """Put one leak of a kind between the first train row and the first test row."""
    train = next(row for row in table if row["split"] == "train")
    test = next(row for row in table if row["split"] == "test")
    index = {row["series_key"]: row for row in made["index"]}
    if kind in {"patient", "study", "series"}:
        test[f"{kind}_key"] = train[f"{kind}_key"]
    elif kind == "volume":
        index[test["series_key"]]["content_sha256"] = index[train["series_key"]]["content_sha256"]
    elif kind == "near volume":
        bits = bytearray(bytes.fromhex(index[train["series_key"]]["average_hash"]))
        bits[5] ^= 0b101
        index[test["series_key"]]["average_hash"] = bits.hex()
    elif kind == "report":
        copies = {
            row["order"]: row["text"] for row in made["sections"] if row["study_key"] == train["study_key"]
        }
        for row in made["sections"]:
            if row["study_key"] == test["study_key"]:
                row["text"] = copies[row["order"]].upper()
    else:
        return {"accessions": [(train["study_key"], "A-1"), (test["study_key"], "A-1")]}
    return {}


@pytest.mark.parametrize(
    "kind", ["patient", "study", "series", "volume", "near volume", "report", "accession"]
)
def test_every_planted_leak_is_found(kind: str) -> None:
    made = tables(20, studies=1)
    table = divide(made)
    assert leaks_of(table, made) == []
    leaks = leaks_of(table, made, **plant(kind, table, made))
    assert kind in {leak.kind for leak in leaks}
    with pytest.raises(CheckError, match=r"split\.leak") as caught:
        require_no_leaks(leaks)
    assert len(str(caught.value).splitlines()) < 5
    assert "A-1" not in str(caught.value)


def write_stage_inputs(root: Path, made: dict[str, list[dict]]) -> None:
    manifest = [
        {name: row[name] for name in ("study_key", "patient_key", "series_key", "provenance")}
        | {"modality": "CT", "source": "phantom", "volume_path": "", "volume_sha256": "", "masks": []}
        for row in made["rows"]
    ]
    folder = root / "artifacts"
    write_rows(folder / "deidentify/manifest.parquet", "deidentified_manifest", manifest)
    write_rows(folder / "deidentify/reports.parquet", "reports", made["reports"])
    labels = [{"study_key": row["study_key"], "name": "nodule", "value": 1} for row in made["rows"][::3]]
    write_rows(folder / "deidentify/labels.parquet", "labels", labels)
    write_table(folder / "section/sections.parquet", pa.Table.from_pylist(made["sections"]))
    write_table(folder / "preprocess/index.parquet", pa.Table.from_pylist(made["index"]))
    accepted = [{"study_key": row["study_key"]} for row in made["reports"][:-1]]
    write_table(folder / "check_reports/accepted.parquet", pa.Table.from_pylist(accepted))
    series = [{"series_key": row["series_key"]} for row in made["rows"][1:]]
    write_table(folder / "check_volumes/accepted.parquet", pa.Table.from_pylist(series))


def test_the_stage_and_the_gate_before_training(tmp_path: Path) -> None:
    made = tables(20, image_only={4, 5})
    write_stage_inputs(tmp_path, made)
    context = StepContext(tmp_path, "split", None, logging.getLogger("test.split"))
    metrics = split.run(split.Params(), context)
    rows = read_rows(tmp_path / "artifacts/split/split.parquet", "split")
    assert len(rows) == len(made["rows"]) - 1  # one volume was refused
    refused_report = made["reports"][-1]["study_key"]
    assert {row["study_key"]: row["paired"] for row in rows}[refused_report] is False
    assert (
        metrics["train"]["patients"] + metrics["validation"]["patients"] + metrics["test"]["patients"] == 20
    )
    before = (tmp_path / "artifacts/split/split.parquet").read_bytes()
    split.run(split.Params(), context)
    assert (tmp_path / "artifacts/split/split.parquet").read_bytes() == before
    assert find_leaks(context) == []
    moved = next(row for row in rows if row["split"] == "test")
    moved["split"] = "train"  # one study of a test patient is moved by hand
    write_rows(tmp_path / "artifacts/split/split.parquet", "split", rows)
    leaks = find_leaks(context)
    assert [leak.kind for leak in leaks] == ["patient"]
    assert moved["patient_key"] in str(leaks[0])


def test_nothing_accepted_is_an_error(tmp_path: Path) -> None:
    made = tables(6)
    write_stage_inputs(tmp_path, made)
    path = tmp_path / "artifacts/check_volumes/accepted.parquet"
    write_table(path, read_table(path).slice(0, 0))
    context = StepContext(tmp_path, "split", None, logging.getLogger("test.split"))
    with pytest.raises(InputError, match=r"split\.empty"):
        split.run(split.Params(), context)
