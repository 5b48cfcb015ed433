"""Report contrast and NT-Xent: closed forms, slow loops, gradients, who takes part."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives.report_contrast import clip_loss
from components.objectives.vision_contrast import nt_xent
from components.pretraining.features import Features
from tests.objectives_support import Dual, make_batch


def unit(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn((rows, width), generator=source, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_clip_loss_of_orthonormal_features_has_its_closed_form(smoothing: float) -> None:
    """P2, P3: B orthonormal pairs at temperature t: log(e^{1/t} + B - 1) - (1 - smoothing (B-1)/B)/t."""
    rows, temperature = 6, 0.07
    eye = torch.eye(rows, dtype=torch.float64)
    loss = clip_loss(eye, eye, torch.tensor(temperature, dtype=torch.float64), smoothing)
    expected = math.log(math.exp(1 / temperature) + rows - 1)
    expected -= (1 - smoothing * (rows - 1) / rows) / temperature
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_clip_loss_equals_a_slow_loop() -> None:
    volumes, reports, tau, smoothing = unit(5, 3), unit(5, 3, 1), 0.2, 0.1
    total = 0.0
    for queries, keys in ((volumes, reports), (reports, volumes)):
        for i in range(5):
            scores = [float(queries[i] @ keys[j]) / tau for j in range(5)]
            norm = math.log(sum(math.exp(score) for score in scores))
            target = [smoothing / 5 + (1 - smoothing) * (i == j) for j in range(5)]
            total += sum(share * (norm - score) for share, score in zip(target, scores, strict=True)) / 10
    loss = clip_loss(volumes, reports, torch.tensor(tau, dtype=torch.float64), smoothing)
    assert float(loss) == pytest.approx(total, rel=1e-9)


def test_clip_loss_gradient() -> None:
    inputs = (unit(4, 3).requires_grad_(), unit(4, 3, 1).requires_grad_())
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, t, s: clip_loss(v, t, s, 0.1), (*inputs, tau))


def test_nt_xent_equals_a_slow_loop() -> None:
    first, second, tau = 3 * unit(4, 5), 0.5 * unit(4, 5, 1), 0.5
    rows = [*first, *second]
    total = 0.0
    for i, row in enumerate(rows):
        partner = (i + 4) % 8
        scores = {
            k: math.exp(float(F.cosine_similarity(row, other, dim=0)) / tau)
            for k, other in enumerate(rows)
            if k != i
        }
        total -= math.log(scores[partner] / sum(scores.values())) / 8
    assert float(nt_xent(first, second, tau)) == pytest.approx(total, rel=1e-9)


def test_nt_xent_gradient_and_closed_form() -> None:
    first, second = unit(3, 4).requires_grad_(), unit(3, 4, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5), (first, second))
    eye = torch.eye(4, dtype=torch.float64)  # both views equal, other samples orthogonal
    expected = math.log(math.exp(2) + 6) - 2
    assert float(nt_xent(eye, eye, 0.5)) == pytest.approx(expected, rel=1e-12)


def test_report_contrast_uses_the_encoder_s_own_projections_and_paired_rows_only() -> None:
    model, kind = Dual(), OBJECTIVES.get("report_contrast")
    batch = make_batch([5, None, 7, 3])
    objective = kind(kind.Params(label_smoothing=0.0), model)
    assert list(objective.parameters()) == []
    loss = objective(batch, Features(model, batch))["report_contrast"]
    paired = batch["volume"][batch["paired"]]
    volumes = F.normalize(model.volume_projection(model.vision(paired).pooled), dim=-1)
    reports = F.normalize(model.report_projection(model.text(batch["text"]).report), dim=-1)
    scores = volumes @ reports.T / 0.07
    expected = (F.cross_entropy(scores, torch.arange(3)) + F.cross_entropy(scores.T, torch.arange(3))) / 2
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    loss.backward()
    assert model.temperature.grad is not None
    assert float(model.temperature.grad) != 0


@pytest.mark.parametrize("lengths", [[5], [5, None, None], [None, None]])
def test_one_pair_or_none_has_nothing_to_contrast(lengths: list[int | None]) -> None:
    """P9: no negative, no loss; never NaN."""
    model, kind = Dual(), OBJECTIVES.get("report_contrast")
    batch = make_batch(lengths)
    assert kind(kind.Params(), model)(batch, Features(model, batch)) == {}
