"""Every objective with the real encoders: Swin with TriBERT (VELVET-Med), Primus with BERT (COLIPRI)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from components.base.errors import ConfigError
from components.encoders import build
from components.encoders.features import TextBatch
from components.encoders.tokenization import ReportTokenizer
from components.objectives import OBJECTIVES
from components.pretraining.module import PretrainModule, make_objectives
from tests.objectives_support import NAMES, SMALL, TOLD, organ_mask, told
from tests.pretraining_support import CONTRACT, TEXT, VISION

LIMITS = {"max_length": 64, "max_sentences": 8, "max_sentence_pieces": 40}
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "velvet": (VISION, {**TEXT, "dropout": 0.0}, 8),
    "colipri": (
        {
            "name": "primus",
            "patch": 8,
            "width": 24,
            "depth": 2,
            "heads": 2,
            "drop_path": 0.0,
            "projection_dim": 12,
            "pool_heads": 2,
        },
        {
            "name": "bert",
            "hidden": 12,
            "layers": 1,
            "multimodal_layers": 1,
            "heads": 2,
            "ffn": 24,
            "max_positions": 64,
            "dropout": 0.0,
            "pool_heads": 2,
        },
        12,
    ),
}
ONE_SCALE = {"sentence_region", "word_patch", "organ_contrast"}
"""Objectives whose default scale a vision transformer does not have."""


def parts(pair: str) -> tuple[Any, dict[str, dict[str, Any]], dict[str, Any]]:
    """The encoders, parameters of the objectives that they suit, and a batch of all kinds of rows."""
    vision, text, embed_dim = PAIRS[pair]
    sentences = [sentence for signs in TOLD.values() for sign in signs for sentence in sign]
    tokenizer = ReportTokenizer.train(sentences, 150, **LIMITS)
    encoder = build(vision, text, embed_dim, tokenizer, CONTRACT, seed=1)
    blocks = {name: dict(SMALL.get(name, {})) for name in NAMES}
    if pair == "velvet":
        del blocks["masked_autoencoder"]
    else:
        for name in ONE_SCALE:
            blocks[name]["scale"] = 0
    return encoder, blocks, batch_of(tokenizer)


def batch_of(tokenizer: ReportTokenizer) -> dict[str, Any]:
    """Five rows of which four are paired, and a report without a volume."""
    source = torch.Generator().manual_seed(0)
    paired = [0, 1, 3, 4]
    structured = [told(row) for row in paired]
    reports = [[s for sign in r.values() for part in sign.values() for s in part] for r in structured]
    masks = [organ_mask(row, 32) for row in range(5)]
    return {
        "step": 0,
        "volume": torch.rand((5, 1, 32, 32, 32), generator=source),
        "crop": torch.rand((5, 1, 32, 32, 32), generator=source),
        "text": TextBatch.from_arrays(tokenizer.encode(reports)),
        "text_only": TextBatch.from_arrays(tokenizer.encode([["There is ascites.", "No nodule is seen."]])),
        "text_only_key": ["stu_text"],
        "paired": torch.tensor(paired),
        "study_key": [f"stu_{row}" for row in range(5)],
        "patient_key": [f"pat_{row}" for row in range(5)],
        "structured": structured,
        "organ_masks": torch.stack([labels for labels, _ in masks]),
        "organ_names": [names for _, names in masks],
    }


@pytest.mark.parametrize("pair", PAIRS)
def test_all_objectives_together(pair: str) -> None:
    """Finite losses, a gradient on every weight that any of them uses, the same losses again."""
    encoder, blocks, batch = parts(pair)
    module = PretrainModule(encoder, make_objectives(blocks, encoder, 3), 3)
    losses = module.training_step(batch, 0)
    assert set(losses) == {*blocks, "total"}
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    losses["total"].backward()
    for part in (encoder.vision, encoder.text, module.objectives):
        found = [value.grad for value in part.parameters() if value.grad is not None]
        assert all(bool(torch.isfinite(gradient).all()) for gradient in found)
        assert len(found) > 0.9 * len(list(part.parameters()))
    again = module.training_step(batch, 0)
    for name, loss in losses.items():
        assert torch.equal(loss, again[name]), name


@pytest.mark.parametrize("pair", PAIRS)
def test_bf16(pair: str) -> None:
    encoder, blocks, batch = parts(pair)
    module = PretrainModule(encoder, make_objectives(blocks, encoder, 3), 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = module.training_step(batch, 0)
    assert all(bool(torch.isfinite(loss)) and loss.dtype == torch.float32 for loss in losses.values())
    losses["total"].backward()
    gradients = [value.grad for value in module.parameters() if value.grad is not None]
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize("pair", PAIRS)
def test_each_alone_gives_the_loss_that_it_gives_among_the_others(pair: str) -> None:
    encoder, blocks, batch = parts(pair)
    together = PretrainModule(encoder, make_objectives(blocks, encoder, 3), 3)(batch)
    for name in blocks:
        alone = PretrainModule(encoder, make_objectives({name: blocks[name]}, encoder, 3), 3)(batch)
        assert float(alone[name].detach()) == pytest.approx(float(together[name].detach()), rel=1e-5), name


def test_a_text_only_batch_trains_masked_language_alone() -> None:
    encoder, blocks, batch = parts("velvet")
    empty = batch["text"].subset([])
    rest = {"volume": torch.empty(0), "crop": torch.empty(0), "text": empty, "paired": torch.empty(0).long()}
    only = {key: batch[key] for key in ("step", "text_only", "text_only_key")}
    names: list[str] = []
    module = PretrainModule(encoder, make_objectives(blocks, encoder, 3), 3)
    found = module({**only, **rest, "study_key": names, "patient_key": names})
    assert list(found) == ["masked_language"]


def test_an_encoder_that_an_objective_does_not_suit_is_named() -> None:
    encoder, _, _ = parts("velvet")
    with pytest.raises(ConfigError, match="leave patches out"):
        made = OBJECTIVES.get("masked_autoencoder")
        made(made.Params(), encoder)
    colipri = parts("colipri")[0]
    with pytest.raises(ConfigError, match="scales"):
        OBJECTIVES.get("sentence_region")(OBJECTIVES.get("sentence_region").Params(), colipri)


def test_hidden_pieces_are_real_pieces() -> None:
    """With the real tokenizer nothing special is hidden and no special token is put in."""
    from components.objectives._masking import mask_tokens

    encoder, _, batch = parts("velvet")
    tokenizer = encoder.tokenizer
    batch["generator"] = torch.Generator().manual_seed(0)
    keys = [batch["study_key"][row] for row in batch["paired"].tolist()]
    ids, chosen = mask_tokens(batch["text"], keys, batch, tokenizer, tokenizer.vocab_size, 0.5)
    special = np.isin(batch["text"].input_ids.numpy(), sorted(tokenizer.special_ids))
    assert not chosen.numpy()[special].any()
    put_in = set(ids[chosen].tolist()) - {tokenizer.mask_id}
    assert not put_in & tokenizer.special_ids
    assert chosen.any()
