"""What an implementation of VELVET-Med and of COLIPRI must contain of preprocessing, evaluation and release.

The numbers are those of the description of both methods, as in test_methods_requirements.py: 4.1 is VELVET-Med's
list, 4.2 COLIPRI's. The grid of probes has a file of its own, test_probe_grid.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.ndimage import map_coordinates

from components.base.config import load_params, parse, with_preset
from components.base.errors import ConfigError
from components.volumes.contract import Contract, model_input, to_store
from components.volumes.preprocess import Params as PreprocessParams
from tests.conftest import ROOT
from tests.preprocessing_reference import CASES, Case

HALF_HU = 0.5 / 1000 + 1e-6
"""The store keeps whole HU: half of one, on the scale -1..1."""


def colipri_contract(**changes: Any) -> Contract:
    values = with_preset(load_params(ROOT / "params.yaml"), "colipri")["preprocess"]["contract"]
    return parse(Contract, {**values, **changes}, "contract")


def by_steps(case: Case) -> np.ndarray:
    """COLIPRI's chain step by step, as its description gives it: voxel positions from millimetres, nothing shared."""
    hu, affine = case.array().astype(np.float64), case.affine()
    world = [int(np.abs(affine[:3, axis]).argmax()) for axis in range(3)]  # to RAS
    hu = np.moveaxis(hu, range(3), world)
    spacing = [0.0, 0.0, 0.0]
    for axis in range(3):
        step = affine[world[axis], axis]
        spacing[world[axis]] = abs(step)
        if step < 0:
            hu = np.flip(hu, world[axis])
    places = []
    for count, step in zip(hu.shape, spacing, strict=True):  # resample about the centre, linear, not smoothed
        new = int(np.floor(count * step / case.target_mm + 1e-6))
        millimetres = (np.arange(new) - (new - 1) / 2) * case.target_mm
        places.append(millimetres / step + (count - 1) / 2)
    resampled = map_coordinates(hu, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
    scaled = np.clip(resampled, -1000, 1000) / 1000  # clamp, rescale
    for axis, have in enumerate(scaled.shape):  # crop or pad, an odd voxel at the start
        first = -(-abs(have - case.size) // 2)
        if have > case.size:
            scaled = np.take(scaled, range(first, first + case.size), axis)
    widths = [(-(-(case.size - have) // 2), (case.size - have) // 2) for have in scaled.shape]
    return np.pad(scaled, widths, constant_values=-1)[None]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_4_2_3_preprocessing_is_torchios_chain(case: Case) -> None:
    """Against numbers that TorchIO 1.2.1 made, and against the chain written out step by step."""
    spacing, size = (case.target_mm,) * 3, (case.size,) * 3
    contract = colipri_contract(spacing_mm=spacing, size=size)
    mine = model_input(to_store(case.array(), case.affine(), contract), contract)
    theirs = load_file(ROOT / "tests" / "golden" / "colipri_preprocessing.safetensors")[case.name]
    assert mine.shape == theirs.shape == (1, *size)
    assert np.abs(mine - theirs).max() <= HALF_HU
    assert np.abs(mine - by_steps(case)).max() <= HALF_HU
    assert len(np.unique(mine)) > 1000, "no trivial picture"


def test_4_2_3_the_preset_is_colipris_contract() -> None:
    from components.encoders.convert import CONTRACT

    contract = colipri_contract()
    assert contract.orientation == "RAS"
    assert (contract.spacing_mm, contract.size) == ((2.0, 2.0, 2.0), (192, 192, 192))
    assert (contract.hu_window, contract.output_range) == ((-1000.0, 1000.0), (-1.0, 1.0))
    assert (contract.antialias, contract.convention, contract.padding) == (False, "torchio", "minimum")
    released = parse(Contract, CONTRACT, "contract")
    assert released.part() == contract.part(), "released weights are read as the preset trains"


def test_4_2_3_evaluation_at_1_mm_in_windows_is_a_choice() -> None:
    values = with_preset(load_params(ROOT / "params.yaml"), "colipri")["preprocess"]
    assert parse(PreprocessParams, values, "preprocess").evaluation_contract() is None
    asked = {**values, "evaluation": {"spacing_mm": [1, 1, 1], "size": [384, 384, 384]}}
    params = parse(PreprocessParams, asked, "preprocess")
    finer = params.evaluation_contract()
    assert finer is not None
    assert (finer.spacing_mm, finer.size) == ((1.0, 1.0, 1.0), (384, 384, 384))
    assert finer.part(("hu_window", "output_range", "antialias")) == params.contract.part(
        ("hu_window", "output_range", "antialias")
    )
    with pytest.raises(ConfigError, match="multiple"):
        parse(
            PreprocessParams,
            {**values, "evaluation": {"spacing_mm": [1, 1, 1], "size": [380, 384, 384]}},
            "preprocess",
        )
    squeezed = {**asked, "contract": {**values["contract"], "view": "area"}}
    with pytest.raises(ConfigError, match="crop_or_pad"):
        parse(PreprocessParams, squeezed, "preprocess")
