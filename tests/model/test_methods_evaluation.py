"""What an implementation of VELVET-Med and of COLIPRI must contain of preprocessing, evaluation and release.

The numbers are those of the description of both methods, as in test_methods_requirements.py: 4.1 is VELVET-Med's
list, 4.2 COLIPRI's. The grid of probes (4.2.7) has a file of its own, test_probe_grid.py; data and
reports are in test_methods_data.py.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.ndimage import map_coordinates

from components.base.config import load_params, parse, with_preset
from components.base.errors import ConfigError, ContractError, InputError
from components.base.files import read_json, write_json
from components.base.step import StepContext
from components.cohort._evaluation_set import Candidate, evaluation_set
from components.downstream.inputs import DownstreamInputs
from components.downstream.reading import DenseFeatures, open_reading
from components.evaluation.label_maps import CT_RATE_18, label_map, mapped, merged_column
from components.evaluation.prompts import PROMPT_SETS, prompt_set
from components.release import card
from components.volumes import preprocess
from components.volumes.contract import Contract, model_input, to_store
from components.volumes.store import VolumeStore
from tests.conftest import ROOT
from tests.evaluation_support import build_project, params, run_stage
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
    assert parse(preprocess.Params, values, "preprocess").evaluation_contract() is None
    asked = {**values, "evaluation": {"spacing_mm": [1, 1, 1], "size": [384, 384, 384]}}
    params = parse(preprocess.Params, asked, "preprocess")
    finer = params.evaluation_contract()
    assert finer is not None
    assert (finer.spacing_mm, finer.size) == ((1.0, 1.0, 1.0), (384, 384, 384))
    assert finer.part(("hu_window", "output_range", "antialias")) == params.contract.part(
        ("hu_window", "output_range", "antialias")
    )
    with pytest.raises(ConfigError, match="multiple"):
        parse(
            preprocess.Params,
            {**values, "evaluation": {"spacing_mm": [1, 1, 1], "size": [380, 384, 384]}},
            "preprocess",
        )
    squeezed = {**asked, "contract": {**values["contract"], "view": "area"}}
    with pytest.raises(ConfigError, match="crop_or_pad"):
        parse(preprocess.Params, squeezed, "preprocess")


@pytest.fixture(scope="module")
def finer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose volumes lie in a second store too: half the spacing, twice the size."""
    from components.volumes.store import array_sha256, write_array

    root = build_project(tmp_path_factory.mktemp("finer"), num_patients=10)
    store = VolumeStore(root / "artifacts" / "preprocess")
    folder = root / "artifacts" / "preprocess_evaluation"
    own = store.contract
    contract = own.model_copy(
        update={
            "spacing_mm": tuple(step / 2 for step in own.spacing_mm),
            "size": tuple(2 * side for side in own.size),
        }
    )
    rows = []
    for key in sorted(store.keys()):
        hu = np.repeat(np.repeat(np.repeat(store.read(key), 2, 0), 2, 1), 2, 2)
        digest = write_array(folder / "store" / f"{key}.b2nd", hu, {"kind": "hu"})
        content = {"content_sha256": array_sha256(hu, contract), "file_sha256": digest}
        rows.append({**store.row(key), "shape": list(hu.shape), **content, "masks_json": "{}"})
    import pyarrow as pa

    from components.base.files import write_table

    write_table(folder / "index.parquet", pa.Table.from_pylist(rows))
    contract.save(folder)
    return root


def test_4_2_3_a_finer_volume_is_windows_put_together_and_pooled(finer: Path) -> None:
    inputs = DownstreamInputs(finer)
    reading = open_reading(inputs, "evaluation")
    encoder, study = inputs.encoder(), inputs.studies("test")[0]
    side = encoder.contract.size[0]
    assert (reading.window, reading.contract.size) == ((side,) * 3, (2 * side,) * 3)
    volume = torch.from_numpy(reading.volume(study.series_key))[None]
    with torch.inference_mode():
        tokens = {
            (x, y, z): encoder.vision(
                volume[:, :, x * side : (x + 1) * side, y * side : (y + 1) * side, z * side : (z + 1) * side]
            ).scales
            for x in (0, 1)
            for y in (0, 1)
            for z in (0, 1)
        }
        rows = [
            torch.cat([torch.cat([tokens[x, y, z][-1] for z in (0, 1)], 4) for y in (0, 1)], 3)
            for x in (0, 1)
        ]
        whole = torch.cat(rows, 2)
        wanted = torch.nn.functional.normalize(encoder.volume_projection(whole.mean((2, 3, 4))), dim=-1)
    found = inputs.embeddings("evaluation")
    np.testing.assert_allclose(found.rows([study.study_key]), wanted.numpy(), atol=1e-5)
    dense = DenseFeatures(inputs, -1, "evaluation")
    dense.prepare([study.study_key])
    np.testing.assert_allclose(
        dense.read(study.study_key), whole[0].flatten(1).T.numpy(), atol=2e-3, rtol=2e-3
    )
    assert not np.allclose(found.projected, inputs.embeddings().projected, atol=1e-3), "another reading"


def test_4_2_3_every_task_and_protocol_can_be_asked_for_it(finer: Path) -> None:
    values = params()
    for stage, item in (
        ("finetune", "retrieval"),
        ("finetune", "classification"),
        ("evaluate", "zero_shot"),
    ):
        values[stage][item]["resolution"] = "evaluation"
    write_json(finer / "params.yaml", values)
    for stage, item in (
        ("finetune", "retrieval"),
        ("finetune", "classification"),
        ("evaluate", "zero_shot"),
        ("evaluate", "linear_probe"),
    ):
        assert run_stage(finer, stage, item) == 0
    for item in ("zero_shot", "linear_probe"):
        assert (
            read_json(finer / "artifacts" / "evaluate" / item / "metrics.json")["resolution"] == "evaluation"
        )
    assert (
        read_json(finer / "artifacts" / "finetune" / "retrieval" / "gallery.json")["resolution"]
        == "evaluation"
    )


def test_4_2_3_a_store_of_another_contract_is_refused(finer: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finer, root)
    for folder, name in (("preprocess", "training"), ("preprocess_evaluation", "evaluation")):
        path = root / "artifacts" / folder / "contract.json"
        kept = path.read_text()
        write_json(path, {**read_json(path), "hu_window": [-1000, 400]})
        with pytest.raises(ContractError, match="hu_window"):
            DownstreamInputs(root).embeddings(name)
        path.write_text(kept)
    path = root / "artifacts" / "preprocess" / "contract.json"
    write_json(path, {**read_json(path), "spacing_mm": [2.0, 2.0, 2.0]})
    with pytest.raises(ContractError, match="spacing_mm"):
        DownstreamInputs(root).embeddings()
    shutil.rmtree(root / "artifacts" / "preprocess_evaluation")
    with pytest.raises(InputError, match="no store at an evaluation resolution"):
        open_reading(DownstreamInputs(root), "evaluation")


def test_4_2_3_preprocess_writes_the_finer_store_beside_the_other(tmp_path: Path) -> None:
    from tests.data.test_volumes_store import PARAMS, make_root

    make_root(tmp_path, 2)
    context = StepContext(tmp_path, "preprocess", None, logging.getLogger("test.preprocess"))
    preprocess.run(PARAMS, context)
    folder = tmp_path / "artifacts" / "preprocess_evaluation"
    assert list(folder.iterdir()) == [], "made, and empty unless it is asked for"
    before = (tmp_path / "artifacts" / "preprocess" / "index.parquet").read_bytes()
    grid = preprocess.EvaluationGrid(spacing_mm=(1.5, 1.5, 1.5), size=(48, 48, 48))
    metrics = preprocess.run(PARAMS.model_copy(update={"evaluation": grid}), context)
    assert (tmp_path / "artifacts" / "preprocess" / "index.parquet").read_bytes() == before
    coarse, fine = (VolumeStore(path) for path in (tmp_path / "artifacts" / "preprocess", folder))
    assert metrics["evaluation_volumes"] == 2
    assert coarse.keys() == fine.keys()
    key = coarse.keys()[0]
    assert [round(b / a) for a, b in zip(coarse.shape(key), fine.shape(key), strict=True)] == [2, 2, 2]
    assert fine.masks(key) == {}
    assert fine.contract.part(("hu_window", "output_range")) == coarse.contract.part(
        ("hu_window", "output_range")
    )
    preprocess.run(PARAMS, context)
    assert list(folder.iterdir()) == []


def test_4_2_6_the_softmax_over_a_pair_has_the_stored_temperature(tmp_path: Path) -> None:
    from components.evaluation.protocols.zero_shot import prompt_logits

    encoder = DownstreamInputs(build_project(tmp_path, num_patients=4)).encoder()
    with torch.no_grad():
        encoder.temperature.fill_(0.25)
    rng = np.random.default_rng(0)
    volumes = rng.normal(size=(5, encoder.embed_dim))
    volumes /= np.linalg.norm(volumes, axis=1, keepdims=True)
    for name in ("colipri-card", "ct-clip", "chest-ct-showing"):
        prompts = prompt_set(name)
        logit = prompt_logits(encoder, volumes, ["lung_nodule"], prompts)["lung_nodule"]
        (present,), (absent,) = prompts.pair("lung_nodule")
        pair = encoder.embed_reports([present, absent]).double().numpy()
        wanted = torch.from_numpy(volumes @ pair.T / 0.25).softmax(-1)[:, 0].numpy()
        np.testing.assert_allclose(1 / (1 + np.exp(-logit)), wanted, atol=1e-6)


def test_4_2_6_prompts_are_those_of_their_sources() -> None:
    pairs = {name: prompt_set(name).pair("Lung nodule") for name in PROMPT_SETS}
    assert pairs["colipri-card"] == (["Lung nodules present"], ["No lung nodules present"])
    assert pairs["ct-clip"] == (["Lung nodule is present."], ["Lung nodule is not present."])
    assert pairs["chest-ct-showing"] == (
        ["A chest CT scan showing lung nodule."],
        ["A chest CT scan showing no lung nodule."],
    )
    assert prompt_set("colipri-card").pair("Hiatal hernia") == (
        ["Hiatal hernia present"],
        ["No hiatal hernia present"],
    )
    assert all(entry.source for entry in PROMPT_SETS.values())


def test_4_2_7_radchestct_as_ct_rate() -> None:
    standard, sixteen = label_map("radchestct-standard"), label_map("radchestct-16")
    assert set(CT_RATE_18) - set(standard.classes) == {"Mosaic attenuation pattern"}
    assert len(sixteen.classes) == 16
    assert set(sixteen.classes) - set(CT_RATE_18) == {"Calcification"}
    assert len(standard.classes["Medical material"]) == 11
    known = {
        "calcification": {"s1": 1, "s2": 0},
        "coronary_artery_disease": {"s1": 0, "s2": 1},
        "nodule": {"s1": 0, "s2": 0},
        "nodulegr1cm": {"s1": 1},
        "stent": {"s2": 1},
        "hardware": {"s1": 0, "s2": 0},
        "fracture": {"s1": 1},
    }
    first, second = standard.labels(known), sixteen.labels(known)
    assert first == {
        "Medical material": {"s1": 0, "s2": 1},
        "Arterial wall calcification": {"s1": 1, "s2": 0},
        "Coronary artery wall calcification": {"s1": 1, "s2": 0},
        "Lung nodule": {"s1": 1, "s2": 0},
    }
    assert second == {
        "Medical material": {"s1": 0, "s2": 0},
        "Calcification": {"s1": 1, "s2": 1},
        "Lung nodule": {"s1": 0, "s2": 0},
    }
    assert mapped(known, None) == known
    with pytest.raises(ConfigError, match="none of the labels"):
        standard.labels({"region=chest": {"s1": 1}})
    logits = np.array([[1.0, 5.0, 2.0], [4.0, 3.0, 0.0]])
    names = ("Arterial wall calcification", "coronary_artery_wall_calcification", "Emphysema")
    column = merged_column("Calcification", names, logits, (0.1, 0.2, 0.3), "radchestct-16")
    assert column is not None
    assert (column[0].tolist(), column[1]) == ([5.0, 4.0], None)
    column = merged_column("Emphysema", names, logits, (0.1, 0.2, 0.3), "radchestct-16")
    assert column is not None
    assert (column[0].tolist(), column[1]) == ([2.0, 0.0], 0.3)
    assert merged_column("Lung nodule", names, logits, (0.1, 0.2, 0.3), "radchestct-16") is None
    assert merged_column("emphysema", names, logits, (0.1, 0.2, 0.3), None) is None, (
        "without a map names are exact"
    )


def test_4_2_7_ct_rates_evaluation_set() -> None:
    volumes = [
        Candidate("valid_10_a_1.nii.gz", "valid_10_a", (0.7, 0.7), "Nodule."),
        Candidate("valid_2_a_1.nii.gz", "valid_2_a", (0.8, 0.8), " Nodule.\n"),
        Candidate("valid_2_a_2.nii.gz", "valid_2_a", (0.6, 0.6), " Nodule.\n"),
        Candidate("valid_2_a_3.nii.gz", "valid_2_a", (0.6, 0.6), " Nodule.\n"),
        Candidate("valid_3_a_1.nii.gz", "valid_3_a", None, ""),
        Candidate("valid_4_a_1.nii.gz", "valid_4_a", (0.5, 0.5), ""),
        Candidate("valid_5_a_1.nii.gz", "valid_5_a", (0.5, 0.5), "A head."),
    ]
    for order in (volumes, volumes[::-1]):
        others = evaluation_set(order, ["valid_5_a"])
        assert {item.name for item in volumes} - set(others) == {
            "valid_2_a_2.nii.gz",
            "valid_3_a_1.nii.gz",
            "valid_4_a_1.nii.gz",
        }
        assert "list" in others["valid_5_a_1.nii.gz"]
        assert "findings" in others["valid_10_a_1.nii.gz"]


def test_4_2_8_the_card_has_notice_and_populations(tmp_path: Path) -> None:
    from components.encoders.convert import CARD

    root = build_project(tmp_path, num_patients=20)
    artifacts = root / "artifacts"
    people = card.population(
        artifacts / "split" / "split.parquet", artifacts / "deidentify" / "manifest.parquet"
    )
    assert people == {
        "source": {"phantom": 8},
        "provenance": {"synthetic": 8},
        "sex": {"F": 4, "M": 4},
        "age_band": {"40-49": 4, "60-69": 4},
    }
    facts = {
        "model_hash": "0" * 64,
        "contract": {},
        "config": {},
        "cohort": card.cohort(artifacts / "split" / "split.parquet"),
        "metrics": {},
        "gate": {"passed": True},
        "parity": 0.0,
        "population": people,
    }
    text = card.render(card.Facts(**facts, people=("Norway, one hospital",)))
    assert "## Research use only" in text
    assert "not for clinical\nuse" in text
    assert "The training data are of: Norway, one hospital." in text
    assert "| source | phantom | 8 |" in text
    assert "| sex | F | fewer than 5 |" in text, "small groups are not counted out"
    assert "was not stated" in card.render(card.Facts(**facts))
    converted = card.render(card.Facts(**facts, origin=card.origin(CARD)))
    assert "Turkey and the USA\nonly" in converted
    assert "was not stated" not in converted
    assert card.origin("# another card\n\nno such section") == ""


def test_4_2_8_the_package_stage_writes_them(tmp_path: Path) -> None:
    from components.encoders.convert import CARD
    from serving import package
    from tests.model import serving_project as project

    root = project.make_root(tmp_path)
    (root / "artifacts" / "pretrain" / "encoder" / "card.md").write_text(CARD)
    context = project.context(root)
    values = {**context.all_params["package"], "bento": False, "parity_batches": [1]}
    package.run(parse(package.Params, values, "package"), context)
    for name in ("card.md", "encoder/card.md"):
        text = (root / "artifacts" / "package" / name).read_text()
        assert "## Research use only" in text
        assert "Turkey and the USA\nonly" in text
        assert "The training data are of: no people: computed phantoms." in text
        assert "| source | phantom | fewer than 5 |" in text
