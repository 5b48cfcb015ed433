"""Gradient caching: encoders in parts, losses on the whole batch, and the gradient of the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.encoders.features import TextBatch
from components.objectives import OBJECTIVES
from components.pretraining.features import Features
from components.pretraining.microbatch import batch_rows, by_parts, join, micro_batches
from components.pretraining.module import PretrainModule, make_objectives
from tests.objectives_support import Dual, make_batch
from tests.pretraining_support import CONTRACT, PARAMS, TEXT, VISION

LENGTHS: list[int | None] = [9, 5, None, 7, 4, 6, None]
BLOCKS: dict[str, dict[str, Any]] = {
    "report_contrast": {},
    "sentence_region": {"dim": 8},
    "word_patch": {"dim": 8},
    "vision_contrast": {"dim": 8},
    "rotation": {},
    "inpainting": {},
    "masked_language": {},
}


class Counting(Dual):
    """Notes how many rows each encoder takes at a time while a graph is made."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.taken: list[int] = []
        for part in (self.vision.stem, self.text.embedding):
            part.register_forward_pre_hook(lambda _, args: self.taken.append(len(args[0])))


def double(batch: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for key, value in batch.items()
    }


def losses_and_gradient(rows: int, dtype: torch.dtype) -> tuple[dict[str, float], Tensor, list[int]]:
    """Losses by name, the flat gradient of every parameter, and the rows of each encoder call."""
    model = Counting().to(dtype)
    module = PretrainModule(model, make_objectives(BLOCKS, model, 1).to(dtype), 5, rows)
    model.taken.clear()
    batch = make_batch(LENGTHS)
    losses = module(double(batch) if dtype is torch.float64 else batch)
    torch.stack(list(losses.values())).sum().backward()
    gradient = torch.cat([value.grad.flatten() for value in module.parameters() if value.grad is not None])
    return {name: float(value.detach()) for name, value in losses.items()}, gradient, model.taken


@pytest.mark.parametrize("rows", [1, 2, 3, 6])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_gradient_is_that_of_the_whole_batch(rows: int, dtype: torch.dtype, limit: float) -> None:
    wanted, gradient, _ = losses_and_gradient(0, dtype)
    found, cached, taken = losses_and_gradient(rows, dtype)
    assert set(found) == set(BLOCKS)
    assert found == pytest.approx(wanted, rel=limit, abs=limit)
    assert len(cached) == len(gradient)
    assert float((cached - gradient).abs().max()) <= limit * max(1.0, float(gradient.abs().max()))
    assert max(taken) <= rows


def real_module(rows: int, dropout: float) -> PretrainModule:
    from components.encoders import build
    from components.encoders.tokenization import ReportTokenizer

    texts = ["A dense nodule on the left.", "It lies at the upper level."]
    tokenizer = ReportTokenizer.train(texts * 3, 80, max_length=64, max_sentences=8)
    text = {**TEXT, "dropout": dropout}
    encoder = build(VISION, text, 8, tokenizer, CONTRACT, seed=2)
    return PretrainModule(encoder, make_objectives(PARAMS["objectives"], encoder, 1), 5, rows).train()


def real_batch(module: PretrainModule, rows: int = 5) -> dict[str, Any]:
    source = torch.Generator().manual_seed(0)
    told = [
        ["A dense nodule on the left.", "It lies at the upper level."][: 1 + row % 2] for row in range(rows)
    ]
    return {
        "step": 3,
        "volume": torch.rand((rows, 1, 32, 32, 32), generator=source),
        "crop": torch.rand((rows, 1, 32, 32, 32), generator=source),
        "text": TextBatch.from_arrays(module.encoder.tokenizer.encode(told)),
        "paired": torch.arange(rows),
        "study_key": [f"stu_{row}" for row in range(rows)],
        "patient_key": [f"pat_{row}" for row in range(rows)],
    }


def gradients(module: PretrainModule, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    batch = real_batch(module)
    batch |= {name: batch[name].to(dtype) for name in ("volume", "crop")}
    losses = module.to(dtype).training_step(batch, 3)
    losses["total"].backward()
    return {name: value.grad for name, value in module.named_parameters() if value.grad is not None}


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_with_the_real_encoders(dtype: torch.dtype, limit: float) -> None:
    """Swin and TriBERT, whose parts differ in their numbers of sentences and words."""
    wanted, found = (gradients(real_module(rows, 0.0), dtype) for rows in (0, 2))
    assert wanted.keys() == found.keys()
    gap = torch.cat([(found[name] - value).flatten() for name, value in wanted.items()])
    whole = torch.cat([value.flatten() for value in wanted.values()])
    assert float(gap.norm() / whole.norm()) < limit
    for name, value in wanted.items():
        assert float((found[name] - value).norm()) <= 20 * limit * float(value.norm()) + 1e-9, name


def test_dropout_is_drawn_again_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient with parts that are computed again is, to the bit, that with parts that are kept."""
    from components.pretraining import microbatch

    cached = gradients(real_module(2, 0.3))
    assert all(torch.equal(value, gradients(real_module(2, 0.3))[name]) for name, value in cached.items())
    monkeypatch.setattr(microbatch, "_recomputed", microbatch._called)
    kept = gradients(real_module(2, 0.3))
    assert cached.keys() == kept.keys()
    for name, value in kept.items():
        assert torch.equal(cached[name], value), name
    assert any(not torch.equal(value, gradients(real_module(0, 0.3))[name]) for name, value in kept.items())


def test_activations_of_one_part_are_alive_at_a_time() -> None:
    """Tensors kept for the backward pass: far fewer than with the whole batch."""

    def kept(rows: int) -> int:
        module = real_module(rows, 0.0)
        batch = real_batch(module, 8)
        sizes: dict[int, int] = {}

        def pack(value: Tensor) -> Tensor:
            sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            features = Features(module.encoder, {**batch, "generator": torch.Generator()})
            with micro_batches(module.encoder, rows):
                features.volume("global")
                features.text()
        return sum(sizes.values())

    assert kept(1) < kept(0) / 4


def test_the_encoders_are_as_before_afterwards() -> None:
    model = Dual()
    with pytest.raises(RuntimeError, match="inside"), micro_batches(model, 2):
        assert "forward" in vars(model.vision)
        raise RuntimeError("inside")
    assert "forward" not in vars(model.vision)
    assert "hidden_states" not in vars(model.text)
    with micro_batches(model, 0):
        assert "forward" not in vars(model.vision)


class RowNorm(nn.Module):
    """A row-wise objective: the mean over rows of something that reads volume, text and a memo."""

    row_wise = True

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.head = nn.Linear(8, 16)
        self.seen: list[int] = []
        self.params = OBJECTIVES.get("rotation").Params()

    def forward(self, batch: Any, features: Any) -> dict[str, Tensor]:
        self.seen.append(len(batch["study_key"]))
        assert len(batch["paired"]) == len(batch["text"])
        assert all(0 <= row < len(batch["volume"]) for row in batch["paired"].tolist())
        pooled = features.volume("global").pooled
        assert len(pooled) == len(batch["volume"])
        loss = {"norm": self.head(pooled).square().sum(-1).mean()}
        if len(batch["paired"]):
            assert len(features.paired_volume().pooled) == len(features.text().report) == len(batch["paired"])
            loss["report"] = features.memo("r", lambda: features.text().report).square().sum(-1).mean()
        return loss


def test_a_row_wise_objective_is_computed_part_by_part() -> None:
    results = []
    for rows in (0, 2):
        model = Dual()
        torch.manual_seed(3)
        objective = RowNorm(model)
        batch = make_batch([9, 5, 4, 7, 4, 6, 8])
        features = Features(model, batch)
        with micro_batches(model, rows):
            losses = by_parts(objective, batch, features, rows)
        sum(losses.values()).backward()
        values = [*model.vision.parameters(), *model.text.parameters(), *objective.parameters()]
        gradient = torch.cat([(torch.zeros_like(v) if v.grad is None else v.grad).flatten() for v in values])
        results.append(([float(value.detach()) for value in losses.values()], gradient))
        assert max(objective.seen) == (7 if rows == 0 else 2)
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-5, atol=1e-7)


def test_parts_without_a_report_have_no_report_loss() -> None:
    """Rows weigh what they are: a loss that only some parts have is the mean over those parts' rows."""
    model = Dual()
    batch = make_batch([None, None, 4, 7, None])
    losses = by_parts(RowNorm(model), batch, Features(model, batch), 2)
    reports = model.text(batch["text"]).report.square().sum(-1)
    assert float(losses["report"].detach()) == pytest.approx(float(reports.mean().detach()), rel=1e-6)


def test_rows_of_a_batch() -> None:
    batch = {**make_batch(LENGTHS), "structured": ["a", "b", "c", "d", "e"], "text_only": "whole"}
    some = batch_rows(batch, slice(3, 5), slice(2, 4))
    assert some["study_key"] == batch["study_key"][3:5]
    assert torch.equal(some["volume"], batch["volume"][3:5])
    assert some["paired"].tolist() == [0, 1]
    assert torch.equal(some["text"].input_ids, batch["text"].input_ids[2:4])
    assert some["structured"] == ["c", "d"]
    assert "text_only" not in some
    assert batch_rows(batch, slice(0, 2), slice(0, 2))["text_only"] == "whole"
    assert some["generator"] is batch["generator"]


def test_answers_of_different_widths_are_padded() -> None:
    first, second = torch.ones(2, 3, 4), torch.ones(1, 5, 4)
    found = join([first, second])
    assert found.shape == (3, 5, 4)
    assert float(found[:2, 3:].abs().sum()) == 0
    assert join([torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)]).tolist() == [
        [True, True],
        [True, False],
    ]
    with pytest.raises(TypeError, match="no rows to join"):
        join(["a", "b"])


def test_a_run_with_micro_batches_has_the_losses_of_one_without(tmp_path: Any) -> None:
    """The stage: dropout off, ten steps, the same curves but for the last bits."""
    import csv

    from components.base.config import parse
    from components.pretraining import pretrain
    from tests.pretraining_support import context_at, write_cohort

    curves = []
    for rows in (0, 3):
        root = tmp_path / str(rows)
        write_cohort(root)
        values = {**PARAMS, "text": {**TEXT, "dropout": 0.0}, "micro_batch_size": rows, "num_steps": 6}
        pretrain.run(parse(pretrain.Params, values, "pretrain"), context_at(root))
        with (root / "artifacts" / "pretrain" / "curves.csv").open() as stream:
            rows_read = list(csv.DictReader(stream))
        curves.append(
            {(row["step"], row["name"]): float(row["value"]) for row in rows_read if "_r1" not in row["name"]}
        )
    assert curves[0].keys() == curves[1].keys()
    for key, value in curves[0].items():
        assert curves[1][key] == pytest.approx(value, rel=2e-4, abs=1e-5), key
