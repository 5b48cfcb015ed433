"""The stage on a tiny cohort: what it writes, what it needs, that it learns; and the parts of the loop."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from components.base.config import load_params, parse, with_preset
from components.base.errors import InputError, TrainingError
from components.base.files import read_json, sha256_folder
from components.pretraining.settings import Params
from tests.pretraining_support import PARAMS, context_at, write_cohort


def train(root: Path, values: dict[str, Any]) -> dict[str, Any]:
    from components.pretraining import pretrain

    return dict(pretrain.run(parse(Params, values, "pretrain"), context_at(root)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("trained")
    write_cohort(root)
    return root, train(root, PARAMS)


def test_what_it_writes(trained: tuple[Path, dict[str, Any]]) -> None:
    from components.encoders import from_pretrained

    root, _ = trained
    out = root / "artifacts" / "pretrain"
    assert sorted(path.name for path in out.iterdir()) == ["curves.csv", "encoder"]
    encoder = from_pretrained(out / "encoder")
    assert encoder.contract.data_hash is not None
    assert encoder.contract.tokenizer_hash == encoder.tokenizer.hash
    assert encoder.embed_reports(["A nodule on the left."]).shape == (1, 8)
    card = (out / "encoder" / "card.md").read_text()
    assert "not for clinical use" in card
    assert "15 paired and 4 image-only" in card
    rows = (out / "curves.csv").read_text().splitlines()
    assert rows[0] == "step,name,value"
    assert {row.split(",")[1] for row in rows if ",train." in row} >= {
        f"train.{name}" for name in (*PARAMS["objectives"], "total", "temperature", "learning_rate")
    }
    progress = read_json(root / "logs" / "pretrain.progress.json")
    assert progress["unit"] == "steps"
    assert {"volumes_per_s", "data_wait_share", "remaining_s", "loss_total"} <= set(progress)


def test_metrics_are_numbers_without_times(trained: tuple[Path, dict[str, Any]]) -> None:
    metrics = trained[1]
    assert all(isinstance(value, int | float) and math.isfinite(value) for value in metrics.values())
    assert metrics["num_steps"] == metrics["kept_step"] == 20
    assert metrics["num_volumes_seen"] == 80
    assert metrics["num_validation_paired"] == 3
    assert 0 <= metrics["validation_volume_to_report_r1"] <= 1
    assert not any(name.endswith(("_s", "seconds", "per_s")) for name in metrics)


def test_the_same_run_gives_the_same_bytes(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    write_cohort(tmp_path)
    assert train(tmp_path, {**PARAMS, "num_workers": 1}) == trained[1]
    first, second = (root / "artifacts" / "pretrain" for root in (trained[0], tmp_path))
    assert sha256_folder(first) == sha256_folder(second)


def test_the_tokenizer_knows_nothing_of_the_other_splits(tmp_path: Path) -> None:
    from components.base.files import read_table, write_table
    from components.pretraining.pretrain import train_tokenizer
    from components.pretraining.studies import read_cohort

    write_cohort(tmp_path)
    path = tmp_path / "artifacts" / "section" / "sentences.parquet"
    table = read_table(path)
    split = read_table(tmp_path / "artifacts" / "split" / "split.parquet").to_pylist()
    held_out = {row["study_key"] for row in split if row["split"] != "train"}
    rows = table.to_pylist()
    for row in rows:
        if row["study_key"] in held_out:
            row["text"] += " Zyxwvq."
    write_table(path, type(table).from_pylist(rows))
    cohort = read_cohort(context_at(tmp_path), ("findings", "impression"))
    assert any("Zyxwvq" in text for study in cohort.splits["validation"] for text in study.sentences)
    tokenizer = train_tokenizer(parse(Params, PARAMS, "pretrain"), cohort)
    assert not any("zyx" in token or "wvq" in token for token in tokenizer.vocab)


def test_switched_off_objectives_are_not_in_the_graph(trained: tuple[Path, dict[str, Any]]) -> None:
    from components.encoders import from_pretrained
    from components.pretraining.module import make_objectives

    encoder = from_pretrained(trained[0] / "artifacts" / "pretrain" / "encoder")
    blocks = {"rotation": {"weight": 0.0}, "vision_contrast": {"dim": 8}, "inpainting": {}}
    some = make_objectives(blocks, encoder, 1)
    every = make_objectives({**blocks, "rotation": {"weight": 1.0}}, encoder, 1)
    assert list(some) == ["inpainting", "vision_contrast"]
    for name, value in some.state_dict().items():
        assert torch.equal(value, every.state_dict()[name])


def test_each_arm_of_the_ablation_trains(tmp_path: Path) -> None:
    """Report alone, report and sentence, all three, and vision alone are values of one parameter."""
    write_cohort(tmp_path)
    every = PARAMS["objectives"]
    for names in (
        ["report_contrast"],
        ["report_contrast", "sentence_region"],
        ["rotation", "inpainting", "vision_contrast"],
    ):
        arm = {name: every[name] for name in names}
        metrics = train(tmp_path, {**PARAMS, "objectives": arm, "num_steps": 3, "warmup_steps": 0})
        assert {name.removeprefix("train_") for name in metrics if name.startswith("train_")} == {
            *names,
            "total",
        }


def test_image_only_data_say_why_they_cannot_train_text(tmp_path: Path) -> None:
    write_cohort(tmp_path, num_paired=0, num_image_only=12)
    with pytest.raises(InputError, match="no study of the train split has a report"):
        train(tmp_path, PARAMS)


def test_a_series_that_is_not_in_the_store_is_named(tmp_path: Path) -> None:
    from components.base.files import read_table, write_table

    write_cohort(tmp_path)
    path = tmp_path / "artifacts" / "preprocess" / "index.parquet"
    write_table(path, read_table(path).slice(1))
    with pytest.raises(InputError, match="not in the store") as caught:
        train(tmp_path, PARAMS)
    assert caught.value.key == "ser_0000000000000000"


def test_the_first_convolution_takes_up_the_input_s_scale() -> None:
    from components.base.errors import ConfigError
    from components.pretraining.initial import standardise_input

    torch.manual_seed(0)
    layer = torch.nn.Conv3d(1, 5, 4, 4)
    volumes = 0.3 + 0.2 * torch.randn(3, 1, 8, 8, 8)
    wanted = layer((volumes - volumes.mean()) / volumes.std())
    mean, deviation = standardise_input(torch.nn.Sequential(layer), volumes)
    assert (mean, deviation) == (pytest.approx(0.3, abs=0.02), pytest.approx(0.2, abs=0.02))
    torch.testing.assert_close(layer(volumes), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="does not begin"):
        standardise_input(torch.nn.Conv3d(1, 2, 3, padding=1), volumes)


def test_the_rate_warms_up_and_falls_as_a_cosine() -> None:
    from components.pretraining.engine import learning_rate

    params = parse(Params, {**PARAMS, "num_steps": 101, "warmup_steps": 10, "learning_rate": 1.0}, "pretrain")
    rates = [learning_rate(step, params) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5, abs=1e-6)
    assert rates[100] == pytest.approx(1e-8, abs=1e-12)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_weight_decay_spares_norms_biases_and_the_temperature(trained: tuple[Path, dict[str, Any]]) -> None:
    from components.encoders import from_pretrained
    from components.pretraining.module import parameter_groups

    encoder = from_pretrained(trained[0] / "artifacts" / "pretrain" / "encoder")
    decayed, spared, numbers = parameter_groups(encoder, 0.02)
    assert decayed["weight_decay"] == 0.02
    assert spared["weight_decay"] == numbers["weight_decay"] == 0.0
    assert [value is encoder.temperature for value in numbers["params"]] == [True]
    groups = (decayed, spared, numbers)
    assert sum(len(group["params"]) for group in groups) == len(list(encoder.parameters()))


def test_recall_counts_ties_as_misses() -> None:
    from components.pretraining.evaluation import recall_at_1

    assert recall_at_1(torch.eye(4)) == 1.0
    assert recall_at_1(torch.zeros(4, 4)) == 0.0
    source = torch.Generator().manual_seed(0)
    assert recall_at_1(torch.rand((400, 400), generator=source)) < 0.02


def test_a_batch_that_suits_no_objective_says_so() -> None:
    from components.pretraining.module import PretrainModule

    module = PretrainModule(torch.nn.Identity(), torch.nn.ModuleDict(), 0)
    with pytest.raises(TrainingError, match="no objective suits"):
        module.total({}, 4)


def test_every_preset_s_block_is_valid(root: Path) -> None:
    values = load_params(root / "params.yaml")
    assert parse(Params, values["pretrain"], "pretrain").accelerator == "cpu"
    for name in values["presets"]:
        block = parse(Params, with_preset(values, name)["pretrain"], "pretrain")
        assert block.num_steps > 0
    velvet = parse(Params, with_preset(values, "velvet")["pretrain"], "pretrain")
    assert velvet.vision["depths"] == [2, 8, 8, 8]
    assert (velvet.learning_rate, velvet.betas, velvet.weight_decay) == (2e-5, (0.9, 0.98), 0.02)
    assert all(block["weight"] == 1.0 for block in velvet.objectives.values())


def test_help_needs_no_torch() -> None:
    code = "import sys, components.pretraining.pretrain; print([n for n in ('torch', 'numpy') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_values_in_force_make_a_step(root: Path) -> None:
    """The default block's encoders, scales and heads fit each other: every objective gives a gradient."""
    from components.encoders import build
    from components.encoders.features import TextBatch
    from components.encoders.tokenization import ReportTokenizer
    from components.pretraining.module import PretrainModule, make_objectives

    values = load_params(root / "params.yaml")
    params = parse(Params, values["pretrain"], "pretrain")
    texts = ["There is a large left pleural effusion.", "No nodule is seen."]
    tokenizer = ReportTokenizer.train(texts * 3, 200, max_length=params.tokenizer.max_length)
    encoder = build(params.vision, params.text, params.embed_dim, tokenizer, values["preprocess"]["contract"])
    module = PretrainModule(encoder, make_objectives(params.objectives, encoder, 1), 1)
    source = torch.Generator().manual_seed(0)
    size = tuple(values["preprocess"]["contract"]["size"])
    batch = {
        "step": 0,
        "volume": torch.rand((3, 1, *size), generator=source),
        "crop": torch.rand((3, 1, *params.crop_size), generator=source),
        "text": TextBatch.from_arrays(tokenizer.encode([texts, texts[::-1]])),
        "paired": torch.tensor([0, 1]),
        "study_key": ["a", "b", "c"],
        "patient_key": ["a", "b", "c"],
    }
    losses = module.training_step(batch, 0)
    assert set(losses) == {*params.objectives, "total"}
    losses["total"].backward()
    for name, objective in module.objectives.items():
        for parameter in objective.parameters():
            assert parameter.grad is not None, name
