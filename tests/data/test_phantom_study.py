"""Specifications of the phantom cohort: determinism, identifiers, prevalence and how findings change."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from pathlib import Path

import pytest

from components.base.config import parse
from components.base.errors import ConfigError
from components.cohort.phantom import LABELS, PhantomParams, cohort, patient_studies
from components.cohort.phantom.catalogue import CATALOGUE, HEART_FINDINGS, HEART_SLOTS, SLOTS
from components.cohort.sources import SOURCES

PARAMS = PhantomParams(num_patients=120)


@pytest.fixture(scope="module")
def studies():
    return list(cohort(PARAMS, 3))


def test_the_labels_are_those_of_ct_rate_and_each_can_be_drawn():
    assert len(LABELS) == 18
    assert set(CATALOGUE) == set(LABELS)


def test_a_patient_depends_on_no_other(studies):
    again = patient_studies(PhantomParams(num_patients=1), 3, 57)
    assert again == [study for study in studies if study.patient_index == 57]
    assert list(cohort(PhantomParams(num_patients=5), 4)) != list(cohort(PhantomParams(num_patients=5), 3))


def test_specifications_are_small_and_picklable(studies):
    packed = pickle.dumps(studies[0])
    assert len(packed) < 5000
    assert pickle.loads(packed) == studies[0]  # noqa: S301 - our own bytes


def test_identifiers_are_unique_where_they_must_be(studies):
    by_mrn: dict[str, set[int]] = {}
    for study in studies:
        by_mrn.setdefault(study.person.mrn, set()).add(study.patient_index)
    assert all(len(owners) == 1 for owners in by_mrn.values())
    for name in ("accession", "study_uid", "series_uid"):
        values = [getattr(study.visit, name) for study in studies]
        assert len(set(values)) == len(values), name
    assert all(len(study.visit.series_uid) <= 55 for study in studies)


def test_what_belongs_to_the_patient_is_kept_and_what_belongs_to_the_scan_is_not(studies):
    for _, group in itertools.groupby(studies, key=lambda study: study.patient_index):
        own = list(group)
        assert len({study.body for study in own}) == 1
        assert len({study.person for study in own}) == 1
        assert len({study.acquisition for study in own}) == len(own)
        days = [study.visit.day for study in own]
        assert days == sorted(set(days))
        assert [study.prior_day for study in own] == [None, *days[:-1]]


def test_one_to_three_studies_and_some_image_only(studies):
    counts = Counter(Counter(study.patient_index for study in studies).values())
    assert set(counts) == {1, 2, 3}
    image_only = sum(not study.with_report for study in studies) / len(studies)
    assert 0.08 < image_only < 0.24


def test_every_finding_is_common_enough_and_findings_combine(studies):
    for label in LABELS:
        share = sum(study.labels[label] for study in studies) / len(studies)
        assert 0.10 <= share <= 0.42, (label, share)
    first = [study for study in studies if study.study_index == 0]
    pairs = {pair for study in first for pair in itertools.combinations([f.label for f in study.findings], 2)}
    assert len(pairs) > 140  # of 153
    described = [study.findings for study in studies if study.findings]
    assert len(set(described)) == len(described)


def test_no_two_focal_findings_share_a_place_and_none_hides_behind_the_heart(studies):
    for study in studies:
        centres = [item.centre for item in study.findings if CATALOGUE[item.label].lobes]
        assert len(set(centres)) == len(centres)
        if any(study.finding(label) for label in HEART_FINDINGS):
            assert not set(centres) & HEART_SLOTS
        for item in study.findings:
            if CATALOGUE[item.label].lobes:
                assert item.centre in [point for _, point in SLOTS[item.place]]
                assert item.side == ("right" if item.centre[0] > 0 else "left")


def test_changes_tell_the_truth_about_the_previous_study(studies):
    seen = Counter()
    for before, after in itertools.pairwise(studies):
        if before.patient_index != after.patient_index:
            assert all(item.change == "" for item in after.findings) or after.study_index > 0
            continue
        for item in after.findings:
            old = before.finding(item.label)
            seen[item.change] += 1
            if item.change == "new":
                assert old is None
                continue
            assert old is not None
            assert (old.place, old.side, old.seed) == (item.place, item.side, item.seed)
            assert item.previous_mm == old.size_mm
            relation = {"unchanged": 0, "increased": 1, "decreased": -1}[item.change]
            growth = item.size_mm - old.size_mm
            assert (growth > 0) - (growth < 0) == relation or (
                relation == 0 and abs(growth) < 0.12 * old.size_mm
            )
        assert {item.label for item in after.resolved} == {
            item.label for item in before.findings if after.finding(item.label) is None
        }
    assert min(seen[word] for word in ("new", "unchanged", "increased", "decreased")) >= 5


def test_prevalence_can_be_set_and_scaled():
    chosen = dict.fromkeys(LABELS, 0.0) | {"Lung nodule": 1.0}
    for study in cohort(PhantomParams(num_patients=6, prevalence=chosen), 1):
        assert [item.label for item in study.findings] == ["Lung nodule"]
    few = [s for s in cohort(PhantomParams(num_patients=40, prevalence_scale=0.3), 1) if s.study_index == 0]
    many = [s for s in cohort(PhantomParams(num_patients=40, prevalence_scale=2.0), 1) if s.study_index == 0]
    assert 2 * sum(len(s.findings) for s in few) < sum(len(s.findings) for s in many)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_patient": 3}, "num_patients"),
        ({"num_patients": 0}, "num_patients"),
        ({"prevalence": {"Nodule": 0.5}}, "no finding called 'nodule'"),
        ({"prevalence": {"Lung nodule": 1.5}}, "not in [0, 1]"),
        ({"noise_hu": [9.0, 3.0]}, "noise_hu"),
        ({"studies_weights": [0, 0, 0]}, "weights"),
    ],
)
def test_a_wrong_parameter_is_refused_with_its_name(values, words):
    with pytest.raises(ConfigError) as error:
        parse(PhantomParams, values, "ingest.sources.phantom")
    assert words in error.value.render()


def test_the_source_yields_the_cohort(studies):
    kind = SOURCES.get("phantom")
    series = list(kind(kind.Params(num_patients=4), Path(), 3).series())
    expected = [study for study in studies if study.patient_index < 4]
    assert [item.study for item in series] == [study.visit.accession for study in expected]
    for item, study in zip(series, expected, strict=True):
        assert (item.report is not None) == study.with_report
        assert item.provenance == "synthetic"
        assert dict(item.labels) == study.labels
        assert set(item.labels) == set(LABELS)
        assert pickle.loads(pickle.dumps(item)) == item  # noqa: S301 - our own bytes
