"""Drawn volumes: anatomy on its side, findings where they are said to be, the same bytes every time."""

from __future__ import annotations

import hashlib
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest

from components.cohort.phantom import (
    FINDING_VALUES,
    LABELS,
    ORGAN_VALUES,
    PhantomParams,
    cohort,
    render,
    spec,
)
from components.cohort.phantom.canvas import Canvas
from components.cohort.phantom.catalogue import CATALOGUE
from components.cohort.phantom.torso import WHOLE, lobe_of

COARSE = {"in_plane_mm": (2.5, 2.5), "slice_mm": (5.0, 5.0), "studies_weights": (1, 0, 0)}
NONE = dict.fromkeys(LABELS, 0.0)


def only(label, seed=0, **options):
    """The first study of a cohort in which exactly one finding is present."""
    params = PhantomParams(num_patients=1, prevalence=NONE | {label: 1.0}, **(COARSE | options))
    (study,) = cohort(params, seed)
    assert [item.label for item in study.findings] == [label]
    return study


def five_mm(array):
    """Mean over 2 x 2 pixels: about 5 mm isotropic on the coarse grid."""
    x, y = (size // 2 * 2 for size in array.shape[:2])
    return array[:x, :y].reshape(x // 2, 2, y // 2, 2, -1).mean((1, 3))


@pytest.fixture(scope="module")
def plain():
    (study,) = cohort(PhantomParams(num_patients=1, prevalence=NONE, **COARSE), 2)
    return study, render(study)


def test_anatomy_lies_on_its_side(plain):
    _, drawn = plain

    def centre(name):
        index = np.argwhere(drawn.organs == ORGAN_VALUES[name]).mean(0)
        return (drawn.affine @ [*index, 1])[:3]

    assert set(np.unique(drawn.organs)) == {0, *ORGAN_VALUES.values()}
    middle = centre("spine")
    for name, side in {
        **{"liver": 1, "kidney_right": 1, "lung_right": 1},
        **{"spleen": -1, "kidney_left": -1, "lung_left": -1, "heart": -1, "aorta": -1, "stomach": -1},
    }.items():
        assert np.sign(centre(name)[0] - middle[0]) == side, name
    assert centre("heart")[1] > middle[1]  # anterior
    assert centre("liver")[2] < centre("heart")[2] < centre("trachea")[2]  # superior
    assert np.all(np.diag(drawn.affine)[:3] > 0)


def test_hu_are_those_of_tissue(plain):
    study, drawn = plain
    assert drawn.hu.dtype == np.int16
    assert drawn.hu.min() == -1024
    assert drawn.hu.max() <= 3071
    contrast = study.acquisition.contrast
    for name, low, high in (
        ("lung_left", -900, -700),
        ("liver", 50, 130) if contrast else ("liver", 45, 70),
        ("aorta", 150, 230) if contrast else ("aorta", 35, 65),
        ("spine", 80, 400),
        ("trachea", -1000, -600),
    ):
        value = np.median(drawn.hu[drawn.organs == ORGAN_VALUES[name]])
        assert low < value < high, (name, value)
    litres = (drawn.organs <= 2).sum(where=drawn.organs > 0) * np.prod(study.acquisition.spacing_mm) / 1e6
    assert 2.0 < litres < 6.5


def test_noise_has_the_stated_level_and_kernel(plain):
    study, drawn = plain
    liver = drawn.organs == ORGAN_VALUES["liver"]
    alike = {}
    for kernel in ("sharp", "soft"):
        scans = [replace(study.acquisition, noise_hu=level, kernel=kernel) for level in (12.0, 1e-3)]
        noisy, clean = (render(replace(study, acquisition=scan)).hu.astype(np.float32) for scan in scans)
        noise = noisy - clean
        assert abs(noise[liver].std() - 12) < 1.5
        both = liver[1:] & liver[:-1]
        alike[kernel] = float(np.corrcoef(noise[1:][both], noise[:-1][both])[0, 1])
    assert alike["soft"] > 0.3  # neighbours are alike under a soft kernel
    assert alike["sharp"] < 0.1


@pytest.mark.parametrize("label", LABELS)
def test_a_finding_changes_its_place_and_nothing_far_away(label):
    from scipy.ndimage import distance_transform_edt

    for seed in (0, 1):
        study = only(label, seed)
        drawn, without = render(study), render(replace(study, findings=()))
        mask = drawn.findings == FINDING_VALUES[label]
        assert set(np.unique(drawn.findings)) == {0, FINDING_VALUES[label]}
        assert not without.findings.any()
        change = np.abs(drawn.hu.astype(np.float32) - without.hu)
        assert change[mask].mean() > 90
        near = mask.copy()
        if label == spec.CARDIOMEGALY:  # its mask is the enlargement; the chambers change too
            near |= (drawn.organs == ORGAN_VALUES["heart"]) | (without.organs == ORGAN_VALUES["heart"])
        far = distance_transform_edt(~near, sampling=study.acquisition.spacing_mm) > 18  # mm
        assert not change[far].any()
        visible = np.abs(five_mm(drawn.hu.astype(np.float32)) - five_mm(without.hu.astype(np.float32)))
        assert (visible > 100).sum() >= 6  # voxels of the default preset's grid
        assert visible.max() > 150


@pytest.mark.parametrize("label", [label for label in LABELS if CATALOGUE[label].lobes])
def test_a_focal_finding_lies_in_the_lobe_of_its_report(label):
    for seed in range(3):
        study = only(label, seed)
        item, drawn = study.findings[0], render(study)
        canvas = Canvas(study.body, study.acquisition)
        mask = drawn.findings == FINDING_VALUES[label]
        part = np.bincount(lobe_of(canvas, WHOLE)[mask].astype(int), minlength=3).argmax()
        assert part == (0 if "upper" in item.place else 2 if "lower" in item.place else 1)
        assert (canvas.axes[0][np.nonzero(mask)[0]].mean() > 0) == (item.side == "right")


@pytest.mark.parametrize("label", [spec.NODULE, spec.CONSOLIDATION, spec.OPACITY, spec.HIATAL_HERNIA])
def test_the_extent_agrees_with_the_reported_size(label):
    study = only(label, 4, slice_mm=(2.5, 2.5), in_plane_mm=(2.0, 2.0))
    item, drawn = study.findings[0], render(study)
    points = np.argwhere(drawn.findings == FINDING_VALUES[label]) * study.acquisition.spacing_mm
    extent = np.ptp(points, axis=0).max()
    assert 0.6 * item.size_mm < extent < 1.7 * item.size_mm + 6


def test_a_side_is_where_it_is_said_to_be():
    for seed in range(4):
        study = only(spec.PLEURAL_EFFUSION, seed)
        drawn, side = render(study), study.findings[0].side
        middle = np.argwhere(drawn.organs == ORGAN_VALUES["spine"])[:, 0].mean()
        x = np.argwhere(drawn.findings == FINDING_VALUES[spec.PLEURAL_EFFUSION])[:, 0]
        assert {"right": (x > middle).all(), "left": (x < middle).all()}.get(
            side, (x > middle).any() and (x < middle).any()
        )


def test_findings_of_crowded_studies_remain_visible():
    for study in list(cohort(PhantomParams(num_patients=8, prevalence_scale=2.5, **COARSE), 9)):
        drawn = render(study)
        millilitres = np.prod(study.acquisition.spacing_mm) / 1000
        counts = np.bincount(drawn.findings.ravel(), minlength=19) * millilitres
        for item in study.findings:
            assert counts[FINDING_VALUES[item.label]] > 0.3, (item, len(study.findings))
        assert {FINDING_VALUES[item.label] for item in study.findings} == set(np.unique(drawn.findings)) - {0}


def _digest(study):
    drawn = render(study)
    return hashlib.sha256(drawn.hu.tobytes() + drawn.organs.tobytes() + drawn.findings.tobytes()).hexdigest()


def test_order_and_process_do_not_matter():
    studies = list(cohort(PhantomParams(num_patients=3, **COARSE), 8))
    here = [_digest(study) for study in studies]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.map(_digest, studies[::-1])
    assert there[::-1] == here
    assert len(set(here)) == len(here)
