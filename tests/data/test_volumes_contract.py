"""The contract: orientation, resampling, views, scaling, and what happens when two contracts disagree."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.base.errors import ConfigError, ContractError, InputError
from components.volumes.contract import (
    Contract,
    difference,
    mask_input,
    mask_to_store,
    model_input,
    require_same,
    scale,
    to_store,
)
from components.volumes.resampling import area_mean, nearest, reorient, resample, slice_indices
from components.volumes.views import random_start

BASE = Contract(spacing_mm=(2, 2, 2), size=(16, 16, 16), hu_window=(-1000, 1000), output_range=(0, 1))
ORDERS = [(i, j, k) for i in range(3) for j in range(3) for k in range(3) if len({i, j, k}) == 3]


def blob(shape: tuple[int, int, int] = (24, 20, 18)) -> np.ndarray:
    """An asymmetric body in air with a corner marked: no two orientations look alike."""
    hu = np.full(shape, -1000, dtype=np.int16)
    hu[4:18, 5:15, 3:12] = 40
    hu[5:9, 6:8, 4:6] = 900
    return hu


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_every_orientation_gives_the_same_store(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    ras = blob()
    expected = to_store(ras, np.diag([1.0, 1.5, 2.5, 1]), BASE)
    array = np.transpose(ras, order)[tuple(slice(None, None, flips[axis]) for axis in order)]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, world in enumerate(order):
        affine[world, axis] = (1.0, 1.5, 2.5)[world] * flips[world]
    np.testing.assert_array_equal(to_store(array, affine, BASE), expected)


def test_axis_0_grows_to_the_right() -> None:
    array = np.full((10, 10, 10), -1000, dtype=np.int16)
    array[0] = 500  # with an LPS affine the first plane is the patient's rightmost
    turned = reorient(array, np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert (turned[-1] == 500).all()
    assert (turned[0] == -1000).all()


def test_padding_and_metal_are_clipped_before_they_smear() -> None:
    low = blob().astype(np.int32)
    low[:2] = -3024
    low[10, 10, 10] = 30000
    plain = blob().astype(np.int32)
    plain[:2] = -1024
    plain[10, 10, 10] = 3071
    np.testing.assert_array_equal(to_store(low, np.eye(4), BASE), to_store(plain, np.eye(4), BASE))


def test_an_equal_grid_is_left_alone() -> None:
    hu = blob()
    np.testing.assert_array_equal(to_store(hu, np.diag([2.0, 2.0, 2.0, 1]), BASE), hu)


def test_down_sampling_does_not_alias() -> None:
    stripes = np.tile(np.array([-1000, 1000], dtype=np.int16), 32)[:, None, None] * np.ones(
        (1, 8, 8), np.int16
    )
    coarse = resample(stripes, (1, 4, 4), (4, 4, 4))[2:-2]
    assert np.abs(coarse).max() < 60  # point sampling would give +-1000


def test_without_antialiasing_every_voxel_is_a_plain_interpolation() -> None:
    rng = np.random.default_rng(3)
    line = rng.normal(size=24)
    array = np.broadcast_to(line[:, None, None], (24, 2, 2))
    new = resample(array, (1, 1, 1), (2.5, 1, 1), antialias=False)[:, 0, 0]
    centres = (np.arange(len(new)) - (len(new) - 1) / 2) * 2.5 + 23 / 2
    assert np.allclose(new, np.interp(centres, np.arange(24), line), atol=1e-5)
    assert not np.allclose(new, resample(array, (1, 1, 1), (2.5, 1, 1))[:, 0, 0], atol=1e-2)
    plain = BASE.model_copy(update={"antialias": False})
    assert plain.fingerprint() != BASE.fingerprint()


def test_a_ramp_stays_where_it_is() -> None:
    ramp = np.arange(40, dtype=np.float32)[:, None, None] * np.ones((1, 8, 8), np.float32)
    for target in (0.5, 2.0, 3.0):
        new = resample(ramp, (1, 1, 1), (target, 1, 1))
        centres = (np.arange(len(new)) - (len(new) - 1) / 2) * target + 19.5
        inner = slice(len(new) // 4, -len(new) // 4)
        np.testing.assert_allclose(new[inner, 0, 0], centres[inner], atol=0.02)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(1, 30)] * 3),
    st.tuples(*[st.floats(0.4, 6.0)] * 3),
    st.tuples(*[st.floats(0.5, 6.0)] * 3),
)
def test_resampling_keeps_constants_and_masks_share_the_grid(shape, spacing, target) -> None:
    array = np.full(shape, 37, dtype=np.int16)
    new = resample(array, spacing, target)
    np.testing.assert_allclose(new, 37, atol=1e-3)
    assert nearest(array, spacing, target).shape == new.shape


def test_masks_follow_their_volume() -> None:
    hu = blob().repeat(3, 0).repeat(3, 1).repeat(3, 2)
    mask = (hu > -500).astype(np.uint8)
    affine = np.diag([-1.0, 1.0, 1.3, 1])
    labels = mask_to_store(mask, affine, BASE)
    body = to_store(hu, affine, BASE) > -500
    assert labels.shape == body.shape
    assert (labels.astype(bool) & body).sum() * 2 / (labels.sum() + body.sum()) > 0.93
    assert set(np.unique(labels)) == {0, 1}


@pytest.mark.parametrize("view", ["crop_or_pad", "area"])
@pytest.mark.parametrize("shape", [(8, 40, 17), (16, 16, 16), (33, 9, 100)])
def test_views_have_the_size_range_and_type(view: str, shape: tuple[int, int, int]) -> None:
    contract = BASE.model_copy(update={"view": view, "output_range": (-1.0, 1.0)})
    hu = np.random.default_rng(0).integers(-1024, 3071, shape).astype(np.int16)
    tensor = model_input(hu, contract)
    assert tensor.shape == (1, 16, 16, 16)
    assert tensor.dtype == np.float32
    assert tensor.min() >= -1
    assert tensor.max() <= 1
    assert mask_input((hu > 0).astype(np.uint8), contract).shape == (16, 16, 16)


def test_padding_is_the_minimum_even_below_a_window_that_begins_under_air() -> None:
    contract = BASE.model_copy(update={"hu_window": (-1150.0, 350.0)})
    tensor = model_input(np.full((8, 8, 8), -1024, dtype=np.int16), contract)
    assert tensor[0, 0, 0, 0] == 0.0
    assert tensor[0, 8, 8, 8] == pytest.approx(126 / 1500)


def test_crop_keeps_the_centre() -> None:
    hu = np.zeros((20, 16, 16), dtype=np.int16)
    hu[2:18] = 1000
    assert (model_input(hu, BASE) == 1.0).all()


def test_area_is_adaptive_average_pooling() -> None:
    values = np.arange(10.0)
    # bins of [floor(i n/m), ceil((i+1) n/m)) for n=10, m=4
    np.testing.assert_allclose(area_mean(values, 4, 0), [1.0, 3.0, 6.0, 8.0])
    assert slice_indices(5, 3).tolist() == [0, 2, 4]
    assert slice_indices(1, 3).tolist() == [0, 0, 0]


def test_scaling_is_linear_and_clipped() -> None:
    out = scale(np.array([-3000, -1000, 0, 1000, 3071]), BASE)
    np.testing.assert_allclose(out, [0, 0, 0.5, 1, 1])


def test_contract_round_trip_and_difference(tmp_path) -> None:
    BASE.save(tmp_path)
    assert Contract.load(tmp_path) == BASE
    other = BASE.model_copy(update={"hu_window": (-160.0, 240.0), "data_hash": "ff"})
    assert difference(BASE, other) == ["hu_window: [-1000.0, 1000.0] -> [-160.0, 240.0]"]
    with pytest.raises(ContractError, match="hu_window") as caught:
        require_same(BASE, other)
    assert len(str(caught.value).splitlines()) < 5
    require_same(BASE, BASE.model_copy(update={"data_hash": "ff"}))
    assert BASE.fingerprint() != other.fingerprint()


def test_bad_contracts_are_refused(tmp_path) -> None:
    for update in ({"hu_window": [5, 5]}, {"spacing_mm": [0, 1, 1]}, {"size": [4, 64, 64]}, {"colour": 1}):
        (tmp_path / "contract.json").write_text(
            __import__("json").dumps({**BASE.model_dump(mode="json"), **update})
        )
        with pytest.raises(ConfigError):
            Contract.load(tmp_path)
    (tmp_path / "contract.json").write_text("[]")
    with pytest.raises(InputError):
        Contract.load(tmp_path)


def test_a_singular_affine_or_a_flat_array_is_an_input_error() -> None:
    with pytest.raises(InputError):
        to_store(blob(), np.zeros((4, 4)), BASE)
    with pytest.raises(InputError):
        model_input(np.zeros((4, 4)), BASE)


def test_the_contract_needs_no_torch() -> None:
    code = "import sys; import components.volumes.contract as c, numpy as np\n"
    code += "k = c.Contract(spacing_mm=(2,2,2), size=(8,8,8), hu_window=(-1,1), output_range=(0,1))\n"
    code += "c.model_input(c.to_store(np.zeros((9,9,9)), np.eye(4), k), k)\n"
    code += "assert 'torch' not in sys.modules and 'monai' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_random_crops_lie_in_the_body_and_repeat() -> None:
    body = ([10, 0, 20], [40, 12, 30])
    starts = {random_start((64, 12, 48), (16, 16, 16), np.random.default_rng(n), body) for n in range(200)}
    assert len(starts) > 20
    assert {start[1] for start in starts} == {-2}  # smaller than the crop: centred
    assert all(10 <= start[0] <= 24 for start in starts)
    assert all(14 <= start[2] <= 20 for start in starts)  # covers the thin body, stays in the volume
    again = random_start((64, 12, 48), (16, 16, 16), np.random.default_rng(3), body)
    assert again == random_start((64, 12, 48), (16, 16, 16), np.random.default_rng(3), body)
