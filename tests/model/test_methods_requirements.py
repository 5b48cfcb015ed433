"""What an implementation of VELVET-Med and of COLIPRI must contain, one test a requirement, each named by its number.

The numbers are those of the description of both methods: 4.1 is VELVET-Med's list, 4.2 COLIPRI's.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from components.encoders.dual import DualEncoder, skeleton
from components.encoders.features import TextBatch
from components.encoders.pooling import MeanQueryPool
from components.encoders.text import TEXT
from components.encoders.text._pooling import sentence_mask
from components.encoders.tokenization import ReportTokenizer
from components.encoders.vision import VISION
from components.encoders.vocabulary import SPECIAL_TOKENS, sentence_markers

CXR_BERT_VOCABULARY = 30_522
VELVET_VOCABULARY = 30_572


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@cache
def cxr_bert_tokenizer() -> ReportTokenizer:
    """A tokenizer with as many ids as CXR-BERT's and the sentence markers behind them."""
    rest = [f"w{number}" for number in range(CXR_BERT_VOCABULARY - len(SPECIAL_TOKENS))]
    return ReportTokenizer([*SPECIAL_TOKENS, *rest, *sentence_markers(50)])


@cache
def colipri() -> DualEncoder:
    """COLIPRI at its full size, without memory for its weights."""
    contract = {
        "spacing_mm": (2.0, 2.0, 2.0),
        "size": (192, 192, 192),
        "hu_window": (-1000.0, 1000.0),
        "output_range": (-1.0, 1.0),
    }
    text = {"name": "bert", "vocab_rows": CXR_BERT_VOCABULARY}
    with torch.device("meta"):
        return skeleton({"name": "primus"}, text, 768, cxr_bert_tokenizer(), contract)


def test_4_1_1_swin_gives_five_scales_of_96_and_trains_from_scratch() -> None:
    full = VISION.get("swin")(VISION.get("swin").Params())
    assert round(count(full) / 1e6, 2) == 22.85
    assert full.channels == (48, 96, 192, 384, 768)
    torch.manual_seed(0)
    sizes = {"embed_dim": 4, "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2)}
    encoder = VISION.get("swin")(VISION.get("swin").Params(**sizes))
    features = encoder(torch.rand(1, 1, 96, 96, 96))
    assert [scale.shape[-1] for scale in features.scales] == [48, 24, 12, 6, 3]
    optimizer = torch.optim.AdamW(encoder.parameters(), 1e-3)
    target = torch.linspace(-1, 1, features.pooled.shape[1])
    volume, losses = torch.rand(1, 1, 32, 32, 64), []
    for _ in range(15):
        optimizer.zero_grad()
        loss = (encoder(volume).pooled - target).square().mean()
        loss.backward()
        assert all(p.grad is not None for p in encoder.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_4_1_4_tribert_has_sentence_tokens_types_and_mask() -> None:
    tokenizer = ReportTokenizer.train(["the heart is enlarged. no effusions."] * 3, 110, max_length=64)
    assert len(tokenizer.marker_ids) == 50
    arrays = tokenizer.encode([["the heart is enlarged", "no effusions"]], pad_to=24)
    batch = TextBatch.from_arrays(arrays)
    types = batch.token_type_ids[0]
    second = int((types == 2).nonzero()[0])
    assert batch.input_ids[0, 0] == tokenizer.cls_id
    assert batch.input_ids[0, [1, second]].tolist() == tokenizer.marker_ids[:2].tolist()
    assert tokenizer.sep_id not in batch.input_ids
    allowed = sentence_mask(batch.token_type_ids, batch.attention_mask)[0, 0]
    present = batch.attention_mask[0].bool()
    for marker, sentence in ((1, 1), (second, 2)):
        own = (types == sentence) & present
        own[0] = True
        assert torch.equal(allowed[marker], own)
    for row in (0, 2, second + 1):
        assert torch.equal(allowed[row], present), "[CLS] and words see all that is not padding"


def test_4_1_4_tribert_merges_pieces_and_gives_three_levels_from_one_pass() -> None:
    words = [*SPECIAL_TOKENS, "no", "effusion", "##s", "heart"]
    tokenizer = ReportTokenizer([*words, *sentence_markers(50)], max_length=64)
    kind = TEXT.get("tribert")
    sizes = {"hidden": 16, "layers": 2, "multimodal_layers": 1, "heads": 2, "ffn": 32, "max_positions": 64}
    torch.manual_seed(0)
    encoder = kind(kind.Params(**sizes), tokenizer.vocab_size).eval()
    features = encoder(TextBatch.from_arrays(tokenizer.encode([["no effusions", "heart"]])))
    hidden = features.hidden[0]  # [CLS] [SEN_1] no effusion ##s [SEN_2] heart
    torch.testing.assert_close(features.report[0], hidden[0])
    torch.testing.assert_close(features.words[0], torch.stack([hidden[2], hidden[3] + hidden[4], hidden[6]]))
    torch.testing.assert_close(
        features.sentences[0],
        torch.stack([(hidden[1] + hidden[2] + hidden[3] + hidden[4]) / 3, (hidden[5] + hidden[6]) / 2]),
    )


def test_4_1_4_tribert_has_velvets_size_and_modes() -> None:
    kind = TEXT.get("tribert")
    with torch.device("meta"):
        encoder = kind(kind.Params(), VELVET_VOCABULARY)
    assert (len(encoder.text_layers), len(encoder.multimodal_layers)) == (12, 6)
    assert round(count(encoder) / 1e6, 1) == 165.7
    assert encoder.text_layers[0].attention.heads == 6
    assert encoder.embeddings.types.num_embeddings == 51
    assert not any(layer.has_cross for layer in encoder.text_layers)
    assert all(layer.has_cross for layer in encoder.multimodal_layers)


@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_4_1_4_tribert_in_chunks_is_the_same(chunk: int) -> None:
    tokenizer = ReportTokenizer.train(["the heart is enlarged. no effusions."] * 3, 110, max_length=64)
    batch = TextBatch.from_arrays(tokenizer.encode([["the heart is enlarged", "no effusions"]]))
    kind = TEXT.get("tribert")
    sizes = {"hidden": 16, "layers": 2, "multimodal_layers": 1, "heads": 2, "ffn": 32, "max_positions": 64}
    made = []
    for size in (0, chunk):
        torch.manual_seed(0)
        made.append(kind(kind.Params(**sizes, ffn_chunk=size), tokenizer.vocab_size).eval())
    torch.testing.assert_close(made[0].hidden_states(batch), made[1].hidden_states(batch))


def test_4_1_4_tribert_starts_from_cxr_bert(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    words = [*SPECIAL_TOKENS, "no", "effusion"]
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=12,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    bert = BertModel(config, add_pooling_layer=False)
    bert.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = ReportTokenizer.from_folder(tmp_path, max_length=64)
    kind = TEXT.get("tribert")
    sizes = {"hidden": 24, "layers": 2, "multimodal_layers": 1, "heads": 6, "ffn": 32, "max_positions": 64}
    encoder = kind(kind.Params(**sizes), tokenizer.vocab_size)
    encoder.load_initial_weights(tmp_path, tokenizer)
    table, types = encoder.embeddings.words.weight, encoder.embeddings.types.weight
    cls = bert.embeddings.word_embeddings.weight[tokenizer.cls_id]
    assert torch.equal(table[torch.as_tensor(tokenizer.marker_ids)], cls.expand(50, -1))
    assert torch.equal(types[1:], bert.embeddings.token_type_embeddings.weight[0].expand(50, -1))
    attention = bert.encoder.layer[1].attention.self
    mine = encoder.text_layers[1].attention
    assert torch.equal(mine.query.weight, attention.query.weight), "12 heads regrouped to 6: the same matrix"
    assert torch.equal(mine.key_value.weight, torch.cat([attention.key.weight, attention.value.weight]))


def test_4_2_1_primus_m_has_colipris_size() -> None:
    vision = colipri().vision
    parts = {name: count(getattr(vision, name)) for name in ("backbone", "projector", "pooling")}
    assert parts == {"backbone": 144_085_536, "projector": 664_320, "pooling": 2_362_368}
    blocks = vision.backbone.eva.blocks
    assert (len(blocks), vision.patch, vision.width, vision.heads) == (16, 8, 864, 12)
    assert blocks[0].mlp.fc1_g.out_features == 2304
    assert [round(block.drop_path.rate, 4) for block in blocks[::15]] == [0.0, 0.2]
    assert not any("pos_embed" in name or "cls" in name for name, _ in vision.named_parameters())
    assert isinstance(vision.pooling, MeanQueryPool)
    features = vision(torch.empty(1, 1, 192, 192, 192, device="meta"))
    assert features.scales[0].shape == (1, 864, 24, 24, 24)
    assert features.pooled.shape == (1, 768)


def test_4_2_2_the_text_encoder_is_bert_with_a_pool_and_no_projector() -> None:
    text = colipri().text
    assert count(text.pooling) == 2_362_368
    assert count(text) - count(text.pooling) == 108_891_648
    assert isinstance(colipri().report_projection, torch.nn.Identity)
    assert text.max_positions == 512


def test_4_2_1_and_2_together_have_258_366_240_parameters() -> None:
    encoder = colipri()
    assert count(encoder) == 258_366_240 + 1, "and the temperature"
    assert count(encoder) - 1 + 864 == 258_367_104, "the published count includes a buffer of 864"


def test_4_2_2_padding_takes_no_part_in_the_text_vector() -> None:
    tokenizer = ReportTokenizer.train(["no effusion. the heart is enlarged."], 110, max_length=40)
    kind = TEXT.get("bert")
    sizes = {"hidden": 24, "layers": 2, "heads": 2, "ffn": 48, "max_positions": 40, "pool_heads": 4}
    torch.manual_seed(0)
    encoder = kind(kind.Params(**sizes), tokenizer.vocab_size).eval()
    encoder.bind(tokenizer)
    reports = [["no effusion.", "the heart is enlarged."], ["heart"]]
    vectors = [
        encoder.report(TextBatch.from_arrays(tokenizer.encode(reports, pad_to=length)))
        for length in (None, 40)
    ]
    torch.testing.assert_close(*vectors, atol=1e-5, rtol=1e-5)


def test_4_2_6_the_inference_interface() -> None:
    """Pooled and dense images, texts, similarities with a temperature, windows, and a folder to load from.

    That the released weights' names fit, with equal outputs, is tested in test_encoders_colipri.py.
    """
    tokenizer = ReportTokenizer.train(["no nodule. nodules are present."], 110, max_length=40)
    vision = {"name": "primus", "patch": 4, "width": 24, "depth": 1, "heads": 2, "projection_dim": 16}
    text = {"name": "bert", "hidden": 16, "layers": 1, "heads": 2, "ffn": 32, "max_positions": 40}
    contract = {
        "spacing_mm": (2.0, 2.0, 2.0),
        "size": (8, 8, 8),
        "hu_window": (-1000.0, 1000.0),
        "output_range": (-1.0, 1.0),
    }
    encoder = skeleton({**vision, "pool_heads": 4}, {**text, "pool_heads": 4}, 16, tokenizer, contract).eval()
    volume, prompts = torch.rand(2, 1, 8, 8, 8), ["no nodules are present.", "nodules are present."]
    pooled, texts = encoder.encode_volume(volume), encoder.embed_reports(prompts)
    assert pooled.shape == texts.shape == (2, 16)
    assert encoder.vision(volume).scales[0].shape == (2, 24, 2, 2, 2), "unprojected tokens"
    assert encoder.dense(volume).shape == (2, 16, 2, 2, 2)
    scores = (pooled @ texts.T / encoder.tau).softmax(-1)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))
    assert encoder.zero_shot_maps(volume, prompts).shape == (2, 2, 8, 8, 8)
    assert encoder.encode_volume(torch.rand(1, 1, 16, 16, 16), window=(8, 8, 8)).shape == (1, 16)
