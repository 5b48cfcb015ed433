"""Report generation: what is predicted from what, the loss, and that it can learn reports from volumes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from components.objectives import report_generation
from components.objectives._decoder import grid_waves, waves
from components.objectives._reconstruction import enlarge, pool_grid
from components.pretraining.features import Features
from tests.objectives_support import VOCAB, made, make_batch, text_batch, trimmed


def test_the_next_piece_is_the_target_and_a_report_ends_with_sep() -> None:
    _, objective = made("report_generation")
    batch = make_batch([6, None, 3])
    ids, valid, targets = objective.sequences(batch)
    for row in range(2):
        length = int(batch["text"].attention_mask[row].sum())
        assert int(valid[row].sum()) == length
        assert targets[row, : length - 1].tolist() == ids[row, 1:length].tolist()
        assert int(targets[row, length - 1]) == 3
    assert not bool(valid[1, -1])


def test_later_pieces_do_not_reach_earlier_states() -> None:
    """The causal mask does not leak: a changed piece changes no state before it, and does change its own."""
    model, objective = made("report_generation", layers=3)
    batch = make_batch([12, 12])
    ids, _, _ = objective.sequences(batch)
    memory = objective.memory(Features(model, batch))
    before = objective.states(ids, memory)
    for place in (1, 6, ids.shape[1] - 1):
        changed = ids.clone()
        changed[:, place] = (changed[:, place] + 7) % VOCAB
        after = objective.states(changed, memory)
        torch.testing.assert_close(after[:, :place], before[:, :place])
        assert float((after[:, place] - before[:, place]).abs().max()) > 1e-4


def test_the_states_depend_on_the_volume_and_on_where_things_are() -> None:
    model, objective = made("report_generation", scale=0)
    batch = make_batch([8, 8])
    mirrored = {**batch, "volume": batch["volume"].flip(2)}
    ids, _, _ = objective.sequences(batch)
    first = objective.states(ids, objective.memory(Features(model, batch)))
    second = objective.states(ids, objective.memory(Features(model, mirrored)))
    assert float((first - second).abs().max()) > 1e-4


def test_the_loss_is_the_mean_over_pieces_and_padding_counts_nothing() -> None:
    model, objective = made("report_generation")
    batch = make_batch([9, None, 2])
    loss = objective(batch, Features(model, batch))["report_generation"]
    total = count = 0
    for row, place in enumerate([0, 2]):
        one = {**batch, "text": trimmed(batch["text"].subset([row])), "paired": torch.tensor([place])}
        ids, valid, targets = objective.sequences(one)
        assert bool(valid.all())
        logits = objective.logits(objective.states(ids, objective.memory(Features(model, one))))
        total += float(F.cross_entropy(logits[0], targets[0], reduction="sum"))
        count += ids.shape[1]
    assert float(loss.detach()) == pytest.approx(total / count, rel=1e-5)


def test_pieces_in_parts_give_the_same_loss_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for limit in (1024, 5):
        monkeypatch.setattr(report_generation, "PIECES_AT_A_TIME", limit)
        model, objective = made("report_generation")
        batch = make_batch([9, 4, 12])
        loss = objective(batch, Features(model, batch))["report_generation"]
        loss.backward()
        found.append([loss.detach(), objective.embedding.weight.grad, objective.project.weight.grad])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_own_output_layer() -> None:
    tied, own = made("report_generation")[1], made("report_generation", tied=False)[1]
    sizes = [sum(value.numel() for value in each.parameters()) for each in (tied, own)]
    assert sizes[1] - sizes[0] == VOCAB * 12


def test_eight_reports_are_learnt_from_their_volumes() -> None:
    """The field's check of a decoder: token accuracy above 0.95 on eight reports with one beginning."""
    model, objective = made("report_generation", layers=2, hidden=36, heads=3, ffn=72, scale=1, grid=2)
    batch = make_batch([10] * 8)
    batch["text"] = text_batch([10] * 8, seed=5)
    parameters = [*model.parameters(), *objective.parameters()]
    optimizer = torch.optim.Adam(parameters, 0.004)
    for _ in range(220):
        loss = objective(batch, Features(model, batch))["report_generation"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        ids, valid, targets = objective.sequences(batch)
        guess = objective.logits(objective.states(ids, objective.memory(Features(model, batch)))).argmax(-1)
        accuracy = float((guess == targets)[valid].float().mean())
        wrong = {**batch, "volume": batch["volume"].roll(1, 0)}
        guess = objective.logits(objective.states(ids, objective.memory(Features(model, wrong)))).argmax(-1)
        first = targets[:, 1], guess[:, 1]  # the first word: only the volume tells it
    assert accuracy > 0.95
    assert float((first[0] == first[1]).float().mean()) < 0.5


def test_pooling_to_a_grid_is_the_library_s_and_enlarging_is_nearest() -> None:
    source = torch.Generator().manual_seed(0)
    volume = torch.rand((2, 3, 7, 8, 5), generator=source, dtype=torch.float64)
    for grid in ((3, 4, 5), (7, 8, 5), (1, 1, 1), (2, 3, 4)):
        torch.testing.assert_close(pool_grid(volume, grid), F.adaptive_avg_pool3d(volume, grid))
    for size in ((14, 8, 15), (7, 3, 10)):
        torch.testing.assert_close(enlarge(volume, size), F.interpolate(volume, size, mode="nearest-exact"))


def test_position_codes_tell_every_place_apart() -> None:
    code = grid_waves((4, 3, 5), 24, torch.zeros(1, dtype=torch.float64))
    assert code.shape == (60, 24)
    distance = torch.cdist(code, code) + 10 * torch.eye(60, dtype=torch.float64)
    assert float(distance.min()) > 0.1
    line = waves(torch.arange(50), 13)
    assert line.shape == (50, 13)
    assert float(line.abs().max()) <= 1
