"""Organ and aspect contrasts: masks, soft targets, the ontology, the losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from components.objectives._ontology import PATHS, finding_distance, text_distance
from components.objectives._soft import group_log_softmax, soft_contrast
from components.objectives._text import encode_texts, region_texts
from components.objectives.aspect_contrast import ontology_targets
from components.objectives.organ_contrast import mask_mean, region_of, region_weights, soft_positives
from components.pretraining.features import Features
from components.reports.findings import labels
from tests.objectives_support import ORGANS, SIZE, made, make_batch


def entry(
    region: str, sentences: list[str], normal: bool, findings: list[str] | None = None
) -> dict[str, Any]:
    return {"region": region, "sentences": sentences, "normal": normal, "findings": findings or []}


ENTRIES = [
    entry("lungs", ["A nodule."], False, ["Lung nodule"]),
    entry("lungs", ["Clear."], True),
    entry("lungs", ["The lungs are clear."], True),
    entry("lungs", ["A nodule."], False, ["Lung nodule"]),
    entry("lungs", ["Consolidation."], False, ["Consolidation"]),
    entry("heart", ["Normal."], True),
    entry("heart", ["Cardiomegaly."], False, ["Cardiomegaly"]),
]


def unit(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn((rows, width), generator=source, dtype=torch.float64), dim=-1)


def test_mask_pooling_is_the_explicit_mean() -> None:
    source = torch.Generator().manual_seed(0)
    features = torch.rand((3, 4, 4, 4), generator=source, dtype=torch.float64)
    coarse = torch.randint(5, (4, 4, 4), generator=source, dtype=torch.uint8)
    fine = coarse.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    regions = ["heart", "lungs", "abdomen"]
    for labels_map in (coarse, fine):
        means, there = mask_mean(features, region_weights(labels_map, ORGANS, regions, (4, 4, 4)))
        assert there.tolist() == [True, True, True]
        for row, chosen in enumerate((coarse == 3, (coarse == 1) | (coarse == 2), coarse == 4)):
            torch.testing.assert_close(means[row], features[:, chosen].mean(1))
    part = torch.zeros((8, 8, 8), dtype=torch.uint8)
    part[0, 0, 0] = part[2, 0, 0] = part[3, 0, 0] = 3  # one voxel of a position, two of the next
    means, _ = mask_mean(features, region_weights(part, ORGANS, ["heart"], (4, 4, 4)))
    torch.testing.assert_close(means[0], (features[:, 0, 0, 0] + 2 * features[:, 1, 0, 0]) / 3)


def test_weights_count_every_voxel_once_on_any_grid() -> None:
    labels_map = torch.randint(5, (9, 7, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    weights = region_weights(labels_map, ORGANS, ["lungs", "bones"], (4, 7, 3))
    assert weights.shape == (2, 4, 7, 3)
    assert float(weights[0].sum()) == int(((labels_map == 1) | (labels_map == 2)).sum())
    assert float(weights[1].sum()) == 0
    slow = torch.zeros(4, 7, 3)
    for x, y, z in ((labels_map == 1) | (labels_map == 2)).nonzero().tolist():
        slow[x * 4 // 9, y, z * 3 // 10] += 1
    assert torch.equal(weights[0], slow)


def test_empty_masks_are_told_apart_and_give_no_nan() -> None:
    nothing = region_weights(torch.zeros((8, 8, 8), dtype=torch.uint8), ORGANS, ["heart", "lungs"], (4, 4, 4))
    means, there = mask_mean(torch.rand(3, 4, 4, 4), nothing)
    assert there.tolist() == [False, False]
    assert torch.equal(means, torch.zeros(2, 3))


def test_labels_join_into_regions() -> None:
    assert [region_of(name) for name in ORGANS.values()] == ["lungs", "lungs", "heart", "abdomen"]


def test_texts_are_encoded_with_others_of_their_length() -> None:
    """The vectors are those of one padded pass, in the order of the texts; short ones are not padded to long ones."""
    model = made("aspect_contrast")[0]
    texts = [["word " * count] for count in (3, 90, 5, 40, 31, 30, 1)]
    lengths: list[int] = []
    plain = model.text.report
    model.text.report = lambda batch: (lengths.append(batch.input_ids.shape[1]), plain(batch))[1]
    found = encode_texts(model, texts, torch.device("cpu"))
    assert lengths == [32, 42, 92]
    model.text.report = plain
    torch.testing.assert_close(found, encoded(model, [text[0] for text in texts]))


def test_false_negatives_become_soft_positives() -> None:
    targets, same = soft_positives(ENTRIES, 1.0)
    torch.testing.assert_close(targets.sum(-1), torch.ones(7))
    assert targets[1].tolist() == [0, 0.5, 0.5, 0, 0, 0, 0]  # normal and normal
    assert targets[0].tolist() == [0.5, 0, 0, 0.5, 0, 0, 0]  # the very same words
    assert targets[4].tolist() == [0, 0, 0, 0, 1, 0, 0]
    assert targets[5].tolist() == [0, 0, 0, 0, 0, 1, 0]  # normal, but of another region
    assert not bool((targets > 0)[~same].any())
    less, _ = soft_positives(ENTRIES, 0.5)
    assert float(less[1, 2]) == pytest.approx(1 / 3)
    hard, _ = soft_positives(ENTRIES, 0.0)
    assert torch.equal(hard, torch.eye(7))


def test_soft_contrast_equals_a_slow_loop() -> None:
    first, second, tau = unit(7, 4), unit(7, 4, 1), 0.2
    targets, same = soft_positives(ENTRIES, 1.0)
    terms = soft_contrast(first, second, targets.double(), same, tau)
    for i in range(7):
        expected = 0.0
        for queries, keys in ((first, second), (second, first)):
            group = [j for j in range(7) if ENTRIES[j]["region"] == ENTRIES[i]["region"]]
            scores = {j: math.exp(float(queries[i] @ keys[j]) / tau) for j in group}
            for j in group:
                expected -= float(targets[i, j]) * math.log(scores[j] / sum(scores.values())) / 2
        assert float(terms[i]) == pytest.approx(expected, rel=1e-6)


def test_soft_contrast_gradient_and_groups_of_one() -> None:
    targets, same = ontology_targets(ENTRIES, 0.3)
    inputs = (unit(7, 3).requires_grad_(), unit(7, 3, 1).requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: soft_contrast(a, b, targets, same, 0.3), inputs)
    alone = group_log_softmax(torch.randn(3, 3), torch.eye(3, dtype=torch.bool))
    assert torch.equal(alone, torch.zeros(3, 3))


def test_ontology_targets_are_distributions_with_siblings_above_the_unrelated() -> None:
    siblings = [
        entry("lungs", ["a"], False, ["Consolidation"]),
        entry("lungs", ["b"], False, ["Lung opacity"]),
        entry("lungs", ["c"], False, ["Emphysema"]),
        entry("lungs", ["d"], False, ["Cardiomegaly"]),
        entry("lungs", ["e"], True),
        entry("lungs", ["f"], True),
    ]
    targets, _ = ontology_targets(siblings, 0.2)
    torch.testing.assert_close(targets.sum(-1), torch.ones(6, dtype=torch.float64))
    row = targets[0]
    assert row[0] > row[1] > row[2] > row[3]  # itself, sibling, one organ, nothing in common
    assert float(row[3]) == pytest.approx(float(row[4]))
    assert float(targets[4, 5]) == pytest.approx(float(targets[4, 4]))  # normal texts agree


def test_soft_targets_become_hard_ones_as_the_temperature_goes_to_zero() -> None:
    chosen = [ENTRIES[number] for number in (0, 1, 4, 5, 6)]  # no two say the same
    targets, same = ontology_targets(chosen, 1e-3)
    torch.testing.assert_close(targets, torch.eye(5, dtype=torch.float64))
    first, second = unit(5, 4), unit(5, 4, 1)
    terms = soft_contrast(first, second, targets, same, 0.1)
    for rows in ([0, 1, 2], [3, 4]):  # a hard cross-entropy within each region
        logits = first[rows] @ second[rows].T / 0.1
        place = torch.arange(len(rows))
        hard = F.cross_entropy(logits, place, reduction="none") / 2
        hard = hard + F.cross_entropy(logits.T, place, reduction="none") / 2
        torch.testing.assert_close(terms[rows], hard)


def test_the_ontology_covers_the_findings_and_measures_symmetrically() -> None:
    assert set(PATHS) == set(labels())
    for one in labels():
        for other in labels():
            distance = finding_distance(one, other)
            assert distance == finding_distance(other, one)
            assert (distance == 0) == (one == other)
            assert 0 <= distance <= 1
    assert finding_distance("Consolidation", "Lung opacity") == pytest.approx(1 / 3)
    assert finding_distance("Consolidation", "Emphysema") == pytest.approx(2 / 3)
    assert finding_distance("Consolidation", "Cardiomegaly") == 1
    assert finding_distance("Consolidation", "something else") == 1
    two = ["Consolidation", "Emphysema"]
    assert text_distance(two, ["Consolidation"], (False, False)) == pytest.approx((1 / 3 + 0) / 2)
    assert text_distance(["Consolidation"], two, (False, False)) == pytest.approx((1 / 3 + 0) / 2)
    assert text_distance([], [], (True, True)) == 0
    assert text_distance(two, [], (False, True)) == 1
    assert text_distance([], [], (False, False)) == 1


def test_region_texts_say_what_is_there_and_what_is_normal() -> None:
    batch = make_batch([5, 6])
    batch["structured"] = [
        {"lungs": {"positive": ["There is consolidation."], "negative": ["No nodule."]}},
        {
            "heart": {"positive": [], "negative": ["The heart is normal."]},
            "bones": {"positive": [], "negative": []},
        },
    ]
    first, second = region_texts(batch)
    assert (first.row, first.region, first.normal) == (0, "lungs", False)
    assert first.sentences == ("There is consolidation.", "No nodule.")
    assert first.findings == ("Consolidation",)
    assert (second.row, second.region, second.normal, second.findings) == (1, "heart", True, ())


def organ_batch() -> dict[str, Any]:
    """Three pairs: lungs in all, of which the last has no label map; heart in two."""
    batch = make_batch([5, None, 6, 7])
    clear = {"positive": [], "negative": ["The lungs are clear."]}
    batch["structured"] = [
        {"lungs": clear, "heart": {"positive": ["The heart is enlarged."], "negative": []}},
        {"lungs": {"positive": ["There is a nodule."], "negative": []}},
        {"lungs": clear, "heart": {"positive": [], "negative": ["The heart is normal."]}},
    ]
    masks = torch.zeros((4, SIZE, SIZE, SIZE), dtype=torch.uint8)
    masks[0, :5], masks[0, 5:9], masks[3, 8:], masks[3, :4] = 1, 3, 2, 3
    batch["organ_masks"], batch["organ_names"] = masks, [ORGANS, {}, {}, ORGANS]
    return batch


def test_organ_contrast_is_the_mean_over_regions_of_rows_with_masks() -> None:
    model, objective = made("organ_contrast", scale=0, temperature=0.3)
    batch = organ_batch()
    loss = objective(batch, Features(model, batch))["organ_contrast"]
    scale = model.vision(batch["volume"]).scales[0]
    expected = 0.0
    for boxes, said, targets in (
        (
            (scale[0, :, :2].flatten(1), scale[3, :, 4:].flatten(1)),
            ["The lungs are clear."] * 2,
            torch.full((2, 2), 0.5),
        ),
        (
            (None, scale[3, :, :2].flatten(1)),
            ["The heart is enlarged.", "The heart is normal."],
            torch.eye(2),
        ),
    ):
        tokens = []
        for row, box in enumerate(boxes):
            if box is None:  # planes 5 to 8: half of feature plane 2, all of 3, half of 4
                weight = torch.tensor([0, 0, 0.5, 1, 0.5, 0, 0, 0]).view(1, 8, 1, 1)
                tokens.append((scale[row] * weight).sum((1, 2, 3)) / (weight.sum() * 64))
            else:
                tokens.append(box.mean(1))
        visual = F.normalize(objective.organ_projection(torch.stack(tokens)), dim=-1)
        words = F.normalize(objective.text_projection(encoded(model, said)), dim=-1)
        expected += float(
            soft_contrast(visual, words, targets, torch.ones(2, 2, dtype=torch.bool), 0.3).mean() / 2
        )
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def encoded(model: Any, sentences: list[str]) -> torch.Tensor:
    from components.encoders.features import TextBatch

    arrays = model.tokenizer.encode([[sentence] for sentence in sentences])
    return model.text.report(TextBatch.from_arrays(arrays))


def test_regions_of_one_row_and_rows_without_masks_are_left_out() -> None:
    model, objective = made("organ_contrast")
    batch = organ_batch()
    batch["organ_names"] = [ORGANS, {}, {}, {}]
    assert objective(batch, Features(model, batch)) == {}
    batch = organ_batch()
    batch["organ_masks"].zero_()
    assert objective(batch, Features(model, batch)) == {}


def test_planted_organs_are_told_apart() -> None:
    """With planted masks: an organ's token finds its sentence among the others of its region in nearly all rows."""
    rows = 10
    batch = make_batch([5] * rows)
    batch["volume"] = torch.full_like(batch["volume"], 0.2)
    batch["organ_masks"].zero_()
    batch["organ_names"], batch["structured"] = [ORGANS] * rows, []
    for row in range(rows):
        batch["organ_masks"][row, 2:8, 2:8, 2:8] = 3
        ill = row % 2
        batch["volume"][row, 0, 2:8, 2:8, 2:8] += 0.5 * ill + 0.01 * row
        sentence = "The heart is enlarged." if ill else "The heart is normal."
        signs = {"positive": [sentence] if ill else [], "negative": [] if ill else [sentence]}
        batch["structured"].append({"heart": signs})
    model, objective = made("organ_contrast", scale=0)
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], 0.01)
    for _ in range(60):
        loss = objective(batch, Features(model, batch))["organ_contrast"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        features = Features(model, batch)
        tokens, _ = objective.organs(batch, features, region_texts(batch))
        visual = F.normalize(objective.organ_projection(tokens), dim=-1)
        prompts = encoded(model, ["The heart is normal.", "The heart is enlarged."])
        guess = (visual @ F.normalize(objective.text_projection(prompts), dim=-1).T).argmax(-1)
    assert float((guess == torch.arange(rows) % 2).float().mean()) > 0.9


def test_aspect_contrast_is_the_mean_over_aspects() -> None:
    model, objective = made("aspect_contrast", temperature=0.3)
    batch = organ_batch()
    loss = objective(batch, Features(model, batch))["aspect_contrast"]
    pooled = model.vision(batch["volume"]).pooled
    expected = 0.0
    lungs = entry("lungs", ["The lungs are clear."], True), entry("lungs", ["x"], False, ["Lung nodule"])
    heart = entry("heart", ["x"], False, ["Cardiomegaly"]), entry("heart", ["y"], True)
    for rows, said, entries in (
        (
            [0, 2, 3],
            ["The lungs are clear.", "There is a nodule.", "The lungs are clear."],
            [*lungs, lungs[0]],
        ),
        ([0, 3], ["The heart is enlarged.", "The heart is normal."], [*heart]),
    ):
        visual = F.normalize(objective.volume_projection(pooled[rows]), dim=-1)
        words = F.normalize(objective.text_projection(encoded(model, said)), dim=-1)
        targets, same = ontology_targets(entries, 0.2)
        expected += float(soft_contrast(visual, words, targets.float(), same, 0.3).mean() / 2)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_aspects_of_one_row_are_left_out() -> None:
    model, objective = made("aspect_contrast")
    batch = organ_batch()
    batch["structured"] = [{"lungs": {"positive": ["A."], "negative": []}}, {}, {}]
    assert objective(batch, Features(model, batch)) == {}
