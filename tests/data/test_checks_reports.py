"""check_reports: sections that do not tile, wrong encodings and left PHI are set aside by keyed id."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest

from components.base.errors import CheckError, InputError
from components.base.files import read_json, read_table, write_table
from components.base.step import StepContext
from components.cohort.manifest import write_rows
from data_checks import check_reports
from data_checks.phi_patterns import Spot, known_hits, structured_hits, unchanged_hits

PARAMS = check_reports.Params(max_quarantined_fraction=0.8, max_residual_fraction=0.8)
SECTIONS = pa.schema(
    [("study_key", pa.string()), ("order", pa.int64()), ("name", pa.string())]
    + [(name, pa.int64()) for name in ("heading_start", "start", "end")]
    + [("text", pa.string())]
)


def key(kind: str, number: int) -> str:
    return f"{kind}_{number:016x}"


def sectioned(study: str, text: str) -> list[dict]:
    """FINDINGS and IMPRESSION as the sectioner leaves them."""
    at = text.index("IMPRESSION:")
    bounds = [("findings", 0, 9, at), ("impression", at, at + 11, len(text))]
    return [
        {
            "study_key": study,
            "order": order,
            "name": name,
            "heading_start": first,
            "start": start,
            "end": end,
            "text": text[start:end].strip(),
        }
        for order, (name, first, start, end) in enumerate(bounds)
    ]


class Tables:
    """The inputs of the stage; tests change them before `run`."""

    def __init__(self, count: int = 10) -> None:
        self.texts = {
            key("stu", n): f"FINDINGS: A nodule of {n} mm.\nSeen on [DATE].\nIMPRESSION: Nodule {n}."
            for n in range(count)
        }
        self.sections = {study: sectioned(study, text) for study, text in self.texts.items()}
        self.identities: list[dict] = []
        self.audit: list[dict] = []
        self.offsets: list[dict] = []

    def set(self, number: int, text: str) -> None:
        study = key("stu", number)
        self.texts[study], self.sections[study] = text, sectioned(study, text)

    def run(self, root: Path, params: check_reports.Params = PARAMS) -> dict:
        folder = root / "artifacts"
        reports = [{"study_key": study, "text": text} for study, text in self.texts.items()]
        manifest = [
            {"study_key": study, "patient_key": key("pat", n), "series_key": key("ser", n), "masks": []}
            for n, study in enumerate(self.texts)
        ]
        write_rows(folder / "deidentify/reports.parquet", "reports", reports)
        write_rows(folder / "deidentify/manifest.parquet", "deidentified_manifest", manifest)
        write_rows(folder / "deidentify/audit.parquet", "audit", self.audit)
        rows = [row for parts in self.sections.values() for row in parts]
        write_table(folder / "section/sections.parquet", pa.Table.from_pylist(rows, schema=SECTIONS))
        write_rows(root / "restricted/ingest/identities.parquet", "identities", self.identities)
        if self.offsets:
            table = pa.Table.from_pylist(self.offsets)
            write_table(root / "restricted/deidentify/offsets.parquet", table)
        context = StepContext(root, "check_reports", None, logging.getLogger("test.check_reports"))
        return dict(check_reports.run(params, context))


def refused(root: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in read_table(root / "artifacts/check_reports/quarantine.parquet").to_pylist():
        found.setdefault(row["study_key"], set()).add(row["rule"])
    return found


def accepted(root: Path) -> list[str]:
    return read_table(root / "artifacts/check_reports/accepted.parquet").column("study_key").to_pylist()


def test_sound_reports_pass(tmp_path: Path) -> None:
    metrics = Tables().run(tmp_path)
    assert metrics["accepted"] == 10
    assert metrics["checks"] == metrics["checks_passed"]
    assert accepted(tmp_path) == [key("stu", n) for n in range(10)]


def test_planted_faults_are_named(tmp_path: Path) -> None:
    tables = Tables(16)
    study = [key("stu", n) for n in range(16)]
    tables.set(0, "FINDINGS: Mail john@hospital.org now please.\nIMPRESSION: Nodule 0.")
    tables.set(1, "FINDINGS: MRN: 12345678 was seen here today.\nIMPRESSION: Nodule 1.")
    tables.set(2, "FINDINGS: Dr. Brightwater saw a nodule.\nIMPRESSION: Nodule 2.")
    tables.identities.append({"study_key": study[2], "kind": "STAFF", "value": "Ada Brightwater"})
    tables.set(3, "FINDINGS: Ã©panchement Ã  gauche, nodule.\nIMPRESSION: Nodule 3.")
    tables.set(4, "FINDINGS:\nIMPRESSION:")
    tables.sections[study[5]][0]["end"] -= 4
    tables.sections[study[6]][1]["text"] = "something else"
    tables.sections[study[7]] = []
    for part in tables.sections[study[8]]:
        part["name"] = "technique"
    tables.texts[study[9]] = "-- 12 --" * 5
    tables.set(10, "FINDINGS: Compared with 2019-03-04 there is more.\nIMPRESSION: Nodule 10.")
    tables.set(11, "FINDINGS: Phone 555-123-4567 is a replaced one.\nIMPRESSION: Nodule 11.")
    tables.audit.append(
        {"study_key": study[11], "start": 16, "end": 28, "kind": "PHONE", "layer": "rules", "rule": "phone"}
    )
    tables.run(tmp_path)
    found = refused(tmp_path)
    expected = {
        0: "report.structured_phi",
        1: "report.structured_phi",
        2: "report.known_phi",
        3: "report.encoding",
        4: "report.content",
        5: "report.sections_cover",
        6: "report.sections_cover",
        7: "report.sections_cover",
        8: "report.content",
        9: "report.words",
        10: "report.structured_phi",
    }
    assert set(found) == {study[number] for number in expected}
    for number, rule in expected.items():
        assert rule in found[study[number]]
    assert accepted(tmp_path) == study[11:]


def test_what_was_left_is_shown_nowhere(tmp_path: Path) -> None:
    tables = Tables()
    tables.set(0, "FINDINGS: Mail quintus@rome.example now.\nIMPRESSION: Zephyrine Okonkwo.")
    tables.identities.append({"study_key": key("stu", 0), "kind": "PATIENT", "value": "Okonkwo^Zephyrine"})
    tables.run(tmp_path)
    assert refused(tmp_path)[key("stu", 0)] >= {"report.structured_phi", "report.known_phi"}
    for file in (tmp_path / "artifacts/check_reports").iterdir():
        content = file.read_bytes().lower()
        assert b"quintus" not in content
        assert b"okonkwo" not in content


def test_too_many_bad_reports_fail_the_stage(tmp_path: Path) -> None:
    tables = Tables()
    for number in range(3):
        tables.set(number, f"FINDINGS: MRN: 12345678{number} is left.\nIMPRESSION: Nodule {number}.")
    with pytest.raises(CheckError, match=r"3 of 10"):
        tables.run(tmp_path, PARAMS.model_copy(update={"max_quarantined_fraction": 0.2}))
    assert read_json(tmp_path / "artifacts/check_reports/result.json")["success"] is False
    assert not (tmp_path / "artifacts/check_reports/accepted.parquet").exists()


def replace(tables: Tables, number: int, text: str, kind: str, action: str, original: str) -> None:
    """Report `number` says that `text` (its first occurrence) was written in place of `original`."""
    study = key("stu", number)
    start = tables.texts[study].index(text)
    spot = {"study_key": study, "start": start, "end": start + len(text), "kind": kind}
    tables.audit.append(spot | {"layer": "known", "rule": "test", "action": action, "detail": ""})
    place = {"new_start": start, "new_end": start + len(text)}
    tables.offsets.append({"study_key": study, **place, "original": original})


def test_surrogates_and_moved_dates_are_no_residual_phi(tmp_path: Path) -> None:
    tables = Tables()
    tables.set(0, "FINDINGS: Ada Whitlock on 2018-08-16, call 291-555-0142.\nIMPRESSION: Nodule 0.")
    replace(tables, 0, "Ada Whitlock", "PATIENT", "surrogate", "Zoe Brightwater")
    replace(tables, 0, "2018-08-16", "DATE", "shift", "2019-03-04")
    replace(tables, 0, "291-555-0142", "PHONE", "surrogate", "617-732-5500")
    known = [("PATIENT", "Brightwater^Zoe"), ("DATE", "2019-03-04"), ("DATE", "2018-08-16")]
    tables.identities += [{"study_key": key("stu", 0), "kind": kind, "value": value} for kind, value in known]
    metrics = tables.run(tmp_path, check_reports.Params())
    assert metrics["accepted"] == 10
    assert metrics["checks"] == metrics["checks_passed"]


@pytest.mark.parametrize(
    ("text", "kind", "action", "original"),
    [
        ("2019-03-04", "DATE", "shift", "2019-03-04"),
        ("Zoe Brightwater", "PATIENT", "surrogate", "zoe brightwater"),
        ("Dr. Zoe Brightwater", "STAFF", "surrogate", "Brightwater"),
        ("Ada Whitlock", "PATIENT", "surrogate", ""),
    ],
)
def test_a_span_that_was_not_replaced_stops_the_flow(
    text: str, kind: str, action: str, original: str, tmp_path: Path
) -> None:
    tables = Tables()
    tables.set(0, f"FINDINGS: {text} has a nodule there.\nIMPRESSION: Nodule 0.")
    replace(tables, 0, text, kind, action, original)
    with pytest.raises(CheckError, match=r"reports\.no_residual_phi"):
        tables.run(tmp_path, check_reports.Params())
    assert "report.not_replaced" in refused(tmp_path)[key("stu", 0)]
    page = (tmp_path / "artifacts/check_reports/index.html").read_text()
    assert "Brightwater" not in page
    assert "2019-03-04" not in page


def test_originals_that_are_gone_fail_closed(tmp_path: Path) -> None:
    tables = Tables()
    replace(tables, 0, "nodule", "PATIENT", "surrogate", "x")
    tables.offsets = []
    with pytest.raises(InputError):
        tables.run(tmp_path, check_reports.Params())


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("Mail quintus@rome.example now, nodule.", None),
        ("Okonkwo has a nodule in the chest.", ("PATIENT", "Okonkwo^Zephyrine")),
        ("Nodule since 03/04/2019 as before.", ("DATE", "2019-03-04")),
        ("Nodule since 04-Mar-2019 as before.", ("DATE", "20190304")),
        ("Nodule of 0048291 as before, stable.", ("MRN", "MR-0048291")),
    ],
)
def test_one_report_with_phi_stops_the_flow(
    text: str, identity: tuple[str, str] | None, tmp_path: Path
) -> None:
    tables = Tables(30)
    tables.set(0, f"FINDINGS: {text}\nIMPRESSION: Nodule 0.")
    if identity:
        kind, value = identity
        tables.identities.append({"study_key": key("stu", 0), "kind": kind, "value": value})
    with pytest.raises(CheckError, match=r"reports\.no_residual_phi") as stopped:
        tables.run(tmp_path, check_reports.Params())
    for word in ("quintus", "Okonkwo", "03/04", "04-Mar", "0048291"):
        assert word not in str(stopped.value)
    assert not (tmp_path / "artifacts/check_reports/accepted.parquet").exists()


def test_what_a_policy_lets_stay_is_no_residual_phi_but_what_a_person_lets_stay_may_be() -> None:
    text = "Seen 2019-03-04 in Springfield."
    known = [("DATE", "2019-03-04")]
    policy = [Spot(5, 15, "DATE", "known", "keep")]
    assert known_hits(text, known, policy) == []
    assert structured_hits(text, policy) == []
    assert known_hits(text, known, [Spot(5, 15, "", "review", "keep")]) == ["DATE"]
    assert known_hits(text, known, [Spot(5, 15, "DATE", "known", "tag")]) == ["DATE"]


def test_a_generalised_year_may_be_the_original() -> None:
    spots = [
        Spot(5, 9, "DATE", "patterns", "generalise", "2019"),
        Spot(0, 4, "AGE", "patterns", "generalise", "94"),
    ]
    assert unchanged_hits("Seen 2019.", spots) == []


def test_a_cohort_of_copies_fails_the_stage(tmp_path: Path) -> None:
    tables = Tables()
    for number in range(10):
        tables.set(number, "FINDINGS: Lungs are clear.\nIMPRESSION: Normal study.")
    with pytest.raises(CheckError, match=r"reports\.repeated"):
        tables.run(tmp_path)


def test_an_image_only_cohort_passes(tmp_path: Path) -> None:
    tables = Tables(0)
    assert tables.run(tmp_path)["accepted"] == 0
    assert accepted(tmp_path) == []
    assert (tmp_path / "artifacts/check_reports/index.html").exists()


@pytest.mark.parametrize(
    ("identity", "text", "left"),
    [
        (("PATIENT", "Stone^Oskar"), "Seen by Oskar Stone today", True),
        (("PATIENT", "Stone^Oskar"), "STONE, OSKAR", True),
        (("PATIENT", "Stone^Oskar"), "A stone in the left kidney", False),
        (("PATIENT", "White, Ann"), "white matter is normal", False),
        (("PATIENT", "Frame^Ann"), "Frame rate 10. FRAME 3.", False),
        (("PATIENT", "Frame^Ann"), "as told to Frame today", True),
        (("STAFF", "Dr. Lindqvist"), "LINDQVIST", True),
        (("STAFF", "Lindqvist"), "Lindqvist agrees", True),
        (("MRN", "A-9790802"), "id a-9790802.", True),
        (("MRN", "9790802"), "19790802 voxels", False),
        (("DATE", "2014-04-10"), "on 04/10/2014 there was", True),
        (("DATE", "2014-04-10"), "on April 10, 2014 there was", True),
        (("DATE", "2014-04-10"), "on [DATE] there was", False),
        (("HOSPITAL", "Mercy General"), "at mercy  general", True),
        (("SEX", "female"), "female", False),
        (("ID", "image"), "the image shows", False),
        (("STAFF", "Li"), "liver", False),
    ],
)
def test_known_identities(identity: tuple[str, str], text: str, left: bool) -> None:
    assert bool(known_hits(text, [identity])) is left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("mail a.b@c.org", ["email"]),
        ("call (555) 123-4567", ["phone"]),
        ("SSN 123-45-6789", ["ssn"]),
        ("Accession #: AB123456", ["record_number"]),
        ("DOB: 1/2/60", ["birth_date"]),
        ("uid 1.2.840.113619.2.55.3.604688", ["uid"]),
        ("see https://pacs.example/x", ["url"]),
        ("a 12 x 34 x 56 mm mass at L4-5, series 3 image 112, 120 kVp, 1.25 mm", []),
        ("T1N0M0, grade 2-3, SUV 3.4-5.6, 100-120 HU, seen 3/4", []),
    ],
)
def test_structured_patterns(text: str, left: list[str]) -> None:
    assert structured_hits(text, []) == left
