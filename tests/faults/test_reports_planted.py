"""R32: 200 planted tokens appear nowhere outside the restricted root: tables, data docs, logs, errors, decisions."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.base.files import read_table
from components.reports import deidentify, review, section
from components.reports.deid import engine
from components.reports.deid.note import Note
from components.reports.deid.span import Span, StudyContext
from data_checks import check_reports
from tests.conftest import ROOT
from tests.data.test_reports_stages import write_inputs

NUM_STUDIES = 25
KINDS_A_STUDY = 8
TEMPLATE = """PATIENT NAME: {family}, {given}
MRN: {mrn}   ACCESSION #: {accession}
REFERRING PHYSICIAN: Dr. {staff}
FACILITY: {place} General Hospital

FINDINGS: The lungs are clear. Ms. {family} was compared with the prior study. Mail {mail}@clinic.example.
Results were discussed with Dr. {staff}, tel: {phone}. No nodule in study {number}.

IMPRESSION: No acute disease. {given} {family} will return.
"""


def word(rng: random.Random, size: int) -> str:
    return "".join(rng.choice("bcdfgklmnprstvz") + rng.choice("aeiou") for _ in range(size)).capitalize()


def plant(rng: random.Random, number: int) -> dict[str, str]:
    """Eight tokens of a study; letters or digits that stand nowhere else."""
    return {
        "family": "Qz" + word(rng, 3),
        "given": "Xv" + word(rng, 3),
        "staff": "Zj" + word(rng, 3),
        "place": "Vq" + word(rng, 3),
        "mail": "wq" + word(rng, 3).lower(),
        "mrn": f"7{rng.randrange(10**7):07d}{number:02d}",
        "accession": f"ACQ8{rng.randrange(10**7):07d}{number:02d}",
        "phone": f"617-5{number:02d}-{rng.randrange(1000, 9999)}",
    }


class Planted:
    """A project with planted tokens, known and unknown ones."""

    def __init__(self, root: Path, params: dict[str, Any]) -> None:
        rng = random.Random(32)
        self.root = root
        self.studies = {f"stu_{n:016x}": plant(rng, n) for n in range(NUM_STUDIES)}
        self.tokens = {token for tokens in self.studies.values() for token in tokens.values()}
        texts: dict[str, str | None] = {
            key: TEMPLATE.format(**tokens, number=number)
            for number, (key, tokens) in enumerate(self.studies.items())
        }
        known: list[tuple[str, str, str]] = []
        for key, tokens in list(self.studies.items())[::2]:  # of every other study the archive knows nothing
            known += [
                (key, "PATIENT", f"{tokens['family']}^{tokens['given']}"),
                (key, "STAFF", tokens["staff"]),
            ]
            known += [(key, "MRN", tokens["mrn"]), (key, "ACCESSION", tokens["accession"])]
            known += [(key, "HOSPITAL", f"{tokens['place']} General Hospital")]
        gold = tuple(
            (key, text.index(tokens["mrn"]), text.index(tokens["mrn"]) + 10, "MRN")
            for (key, tokens), text in zip(self.studies.items(), texts.values())
            if text
        )
        write_inputs(root, texts, tuple(known), gold)
        values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        values["deidentify"] |= {"review_below": 1.0} | params
        (root / "params.yaml").write_text(yaml.safe_dump(values))

    def found(self) -> dict[str, list[str]]:
        """The planted tokens outside restricted/, by file; tables are read, all else is searched as bytes."""
        hits: dict[str, list[str]] = {}
        seen = 0
        for path in sorted(self.root.rglob("*")):
            inside = path.relative_to(self.root)
            if not path.is_file() or inside.parts[0] == "restricted":
                continue
            seen += 1
            content = path.read_bytes().decode("utf-8", "replace") + str(inside)
            if path.suffix == ".parquet":
                content += str(read_table(path).to_pylist())
            hits |= {str(inside): found} if (found := self.in_text(content)) else {}
        assert seen
        return hits

    def in_text(self, content: str) -> list[str]:
        lower = content.lower()
        return sorted(token for token in self.tokens if token.lower() in lower)


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What libraries write to the folder for temporary files is searched too."""
    (tmp_path / "root" / "temporary").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "root" / "temporary"))


def steps(root: Path) -> list[int]:
    arguments = ["--root", str(root)]
    return [module.STEP.main(arguments) for module in (deidentify, section, check_reports)]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"policy": "safe_harbor"},
        {"policy": "limited_data_set"},
        {"policy": "research_internal"},
        {"actions": {"PATIENT": "mask", "STAFF": "mask", "MRN": "mask", "ID": "mask"}},
    ],
    ids=["tags", "safe_harbor", "limited_data_set", "research_internal", "masks"],
)
def test_no_planted_token_leaves_the_restricted_root(
    params: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    planted = Planted(tmp_path / "root", params)
    assert len(planted.tokens) == NUM_STUDIES * KINDS_A_STUDY == 200
    assert steps(planted.root) == [0, 0, 0]
    assert planted.found() == {}
    shown = capfd.readouterr()
    assert planted.in_text(shown.out + shown.err) == []
    offsets = read_table(planted.root / "restricted/deidentify/offsets.parquet").to_pylist()
    assert len(planted.in_text(str(offsets))) == 200, "the way back is in the restricted root"


def test_decisions_about_planted_tokens_hold_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    planted = Planted(tmp_path / "root", {})
    assert deidentify.STEP.main(["--root", str(planted.root)]) == 0
    root = ["--root", str(planted.root)]
    assert review.main([*root, "list"]) == 0
    for key in planted.studies:
        if review.Review(planted.root).queue().get(key):
            assert review.main([*root, "accept", key]) == 0
        assert review.main([*root, "redact", key, "--span", "0", "9999999"]) != 0
    shown = capfd.readouterr()
    assert planted.in_text(shown.out + shown.err) == []
    assert planted.found() == {}


class Breaking:
    """A layer that quotes the note in its error."""

    name = "breaking"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        raise ValueError(f"cannot read {text.view} of {study.identities}")


def test_errors_quote_no_planted_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    planted = Planted(tmp_path / "root", {})
    monkeypatch.setattr(engine, "default_layers", lambda: (Breaking(),))
    assert deidentify.STEP.main(["--root", str(planted.root)]) != 0, (
        "all notes are set aside: the stage fails"
    )
    monkeypatch.undo()
    monkeypatch.setattr(deidentify, "handle_all", lambda *args: 1 / 0 if args else None)
    assert deidentify.STEP.main(["--root", str(planted.root)]) != 0
    shown = capfd.readouterr()
    assert planted.in_text(shown.out + shown.err) == []
    assert planted.found() == {}


def test_a_check_that_finds_them_does_not_show_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    planted = Planted(tmp_path / "root", {})
    monkey = pytest.MonkeyPatch()
    monkey.setattr(engine, "default_layers", lambda: ())  # nothing is found: every token passes the stage
    try:
        assert deidentify.STEP.main(["--root", str(planted.root)]) == 0
    finally:
        monkey.undo()
    assert section.STEP.main(["--root", str(planted.root)]) == 0
    code = check_reports.STEP.main(["--root", str(planted.root)])
    assert code == 6, "the check stops the flow"
    shown = capfd.readouterr()
    assert planted.in_text(shown.out + shown.err) == []
    assert len(planted.found()["artifacts/deidentify/reports.parquet"]) == 200, (
        "the search finds what is there"
    )
    outside = {name: hits for name, hits in planted.found().items() if not name.startswith("artifacts/")}
    assert outside == {}
    checked = {name for name in planted.found() if name.startswith("artifacts/check_reports")}
    assert checked == set()
