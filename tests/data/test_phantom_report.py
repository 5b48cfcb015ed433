"""Phantom reports: eight layouts, gold spans, and the truth about what was drawn."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from datetime import datetime

import pytest

from components.cohort.phantom import HEADER_STYLES, PhantomParams, cohort, spec, write_report
from components.cohort.phantom.report import phi, resolve

# What a reader takes for a mention of each label; written apart from the phrase bank on purpose.
MENTION = {
    spec.MEDICAL_MATERIAL: r"pacemaker|\bport\b|sternotomy|venous catheter|prosthetic|device|hardware",
    spec.ARTERIAL_CALCIFICATION: r"(?=.*(aort))(?=.*(calcif|atheroscl))(?!.*coronar).*",
    spec.CARDIOMEGALY: r"cardiomegaly|(heart|silhouette) is \w+ enlarged|\w+ enlarged heart|heart size|heart is normal",
    spec.PERICARDIAL_EFFUSION: r"pericardial",
    spec.CORONARY_CALCIFICATION: r"coronary",
    spec.HIATAL_HERNIA: r"hernia",
    spec.LYMPHADENOPATHY: r"lymph|nodes",
    spec.EMPHYSEMA: r"emphysem",
    spec.ATELECTASIS: r"atelectasis|fully expanded",
    spec.NODULE: r"nodule",
    spec.OPACITY: r"opacit",
    spec.FIBROTIC_SEQUELA: r"fibrotic|scarring",
    spec.PLEURAL_EFFUSION: r"pleural (or pericardial )?effusion|pleural spaces",
    spec.MOSAIC: r"mosaic",
    spec.PERIBRONCHIAL: r"peribronchial|bronchial walls?\b",
    spec.CONSOLIDATION: r"consolidation",
    spec.BRONCHIECTASIS: r"bronchiectasis|airways taper",
    spec.SEPTAL: r"interlobular",
}
DENIAL = re.compile(
    r"^(\d\. )?(\w[\w ]*: )?(no|there (is|are) no|interval resolution)\b|free of|is absent|not thickened|has resolved"
    r"|without (a mosaic|pericardial)|fully expanded|taper normally|normal in size|normal heart size|normal limits"
)


@pytest.fixture(scope="module")
def reports():
    studies = [study for study in cohort(PhantomParams(num_patients=160), 12) if study.with_report]
    return [(study, *write_report(study)) for study in studies]


def body_of(text):
    """From the findings heading on, in lower case, on one line."""
    flat = " ".join(text.replace("**", "").split()).lower()
    found = re.search(r"\bfindings\b", flat)
    assert found
    return flat[found.end() :].lstrip(" :-")


def sentences(text):
    flat = re.sub(r"\bimpression\b *[:-]?", "", body_of(text))
    return [part.strip() for part in re.split(r"(?<!\b\d)(?<!dr)\.(?= |$)", flat) if part.strip()]


def test_every_drawn_finding_is_stated_and_no_other(reports):
    for study, text, _ in reports:
        stated, denied = set(), set()
        for sentence in sentences(text):
            target = denied if DENIAL.search(sentence) else stated
            target |= {label for label, pattern in MENTION.items() if re.search(pattern, sentence)}
        present = {label for label, value in study.labels.items() if value}
        assert stated == present, (stated ^ present, text)
        assert not denied & present, (denied & present, text)


def test_negated_findings_are_common(reports):
    negated = [sum(bool(DENIAL.search(part)) for part in sentences(text)) for _, text, _ in reports]
    assert min(negated) >= 0
    assert sum(negated) / len(negated) > 4


def test_attributes_are_those_that_were_drawn(reports):
    for study, text, _ in reports:
        body = body_of(text)
        for item in study.findings:
            if item.label in (spec.NODULE, spec.CONSOLIDATION, spec.ATELECTASIS, spec.OPACITY):
                assert item.place in body
                size = {f"{item.size_mm:.0f} mm", f"{item.size_mm / 10:.1f} cm"}
                assert any(words in body for words in size)
            if item.label == spec.PLEURAL_EFFUSION:
                assert f"{item.side} pleural effusion" in body
                other = {"left": "right", "right": "left"}.get(item.side)
                assert other is None or f"{other} pleural effusion" not in body


def test_a_report_tells_its_scan_from_the_others(reports):
    bodies = Counter(body_of(text) for _, text, _ in reports)
    assert max(bodies.values()) == 1
    assert len({text for _, text, _ in reports}) == len(reports)


def test_spans_are_exact_and_hold_the_known_identities(reports):
    kinds = Counter()
    for study, text, spans in reports:
        known = {value.casefold() for _, value in study.identities}
        words = {word for value in known for word in value.split()}
        days = {value for kind, value in study.identities if kind == "DATE"}
        assert spans == sorted(spans)
        assert all(end <= start for (_, end, _), (start, _, _) in itertools.pairwise(spans))
        for start, end, kind in spans:
            value = text[start:end]
            kinds[kind] += 1
            assert value == value.strip()
            assert value
            if kind == "DATE":
                assert parse_day(value) in days
            elif kind in ("PATIENT", "STAFF"):
                parts = re.split(r"[ ,^]+", value.casefold())
                assert all(part in words or re.fullmatch(r"\w\.", part) for part in parts), value
            elif kind == "AGE":
                assert int(value) == int(study.age_years) >= 90
            else:
                assert value.casefold() in known
    assert set(kinds) >= {"PATIENT", "MRN", "ACCESSION", "STAFF", "DATE", "HOSPITAL", "PHONE"}


def parse_day(value):
    for layout in ("%m/%d/%Y", "%Y-%m-%d", "%d %B %Y", "%b %d, %Y", "%m/%d/%y"):
        try:
            day = datetime.strptime(value, layout).date()
            # two digits of a year of birth are of the last century
            return day.replace(year=day.year - 100 if day.year > 2026 else day.year).isoformat()
        except ValueError:
            continue
    raise AssertionError(value)


def test_no_identifier_is_left_outside_the_spans(reports):
    for study, text, spans in reports:
        rest = text
        for start, end, _ in reversed(spans):
            rest = rest[:start] + "\n" + rest[end:]
        for kind, value in study.identities:
            if kind != "DATE":
                assert value.casefold() not in rest.casefold()
        assert study.person.family not in re.findall(r"\w[\w'-]*", rest)
        assert not re.search(r"\d{4}-\d\d-\d\d|\d\d/\d\d/\d\d|\b(19|20)\d\d\b", rest)


HEADING = {
    "newline_space": r"\n FINDINGS:\n \n ",
    "flush_left": r"\nFINDINGS: \S",
    "own_line": r"\nFINDINGS:?\n\S",
    "title_case": r"\nFindings: \S",
    "markdown": r"\n\*\*Findings\*\*\n\S",
    "dash": r"\nFINDINGS - \S",
    "run_on": r"[^\n] FINDINGS: \S",
    "crlf": r"\r\nFINDINGS: \S",
}


@pytest.mark.parametrize("style", HEADER_STYLES)
def test_each_header_style_is_laid_out_as_it_is_named(reports, style):
    texts = [text for study, text, _ in reports if study.header_style == style]
    assert len(texts) >= 5
    for text in texts:
        assert len(re.findall(HEADING[style], text)) == 1
        assert (
            len(
                re.findall(
                    HEADING[style].replace("FINDINGS", "IMPRESSION").replace("Findings", "Impression"), text
                )
            )
            <= 1
        )
        assert ("\n" in text) == (style != "run_on")
        assert ("\r" in text) == (style == "crlf")
        assert text.count("\r") in (0, text.count("\n"))
        assert re.search("impression", text, re.I)


def test_priors_are_named_only_where_there_is_one(reports):
    named = 0
    for study, text, _ in reports:
        words = re.search(
            r"unchanged|stable since|previously|new since|increased|decreased|resolved|the prior",
            body_of(text),
        )
        if study.prior_day is None:
            assert not words
        else:
            named += bool(words)
    followed = sum(study.prior_day is not None for study, _, _ in reports)
    assert named > 0.7 * followed


def test_a_report_depends_on_its_study_alone(reports):
    study, text, spans = reports[17]
    assert write_report(study) == (text, spans)


def test_marks_become_spans():
    text, spans = resolve(f"Seen by {phi('STAFF', 'Ana de la Cruz')}, {phi('DATE', '1 May 2010')}.")
    assert text == "Seen by Ana de la Cruz, 1 May 2010."
    assert [(text[a:b], kind) for a, b, kind in spans] == [
        ("Ana de la Cruz", "STAFF"),
        ("1 May 2010", "DATE"),
    ]
