"""The plain BERT: what it sees, that it is BERT, padding, local features, the start from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.base.errors import ConfigError, InputError
from components.encoders.features import TextBatch
from components.encoders.text import TEXT
from components.encoders.text.bert import Bert, BertParams, without_markers
from components.encoders.tokenization import ReportTokenizer
from components.encoders.vocabulary import sentence_markers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "effusion", "heart", "##s", "normal", "."]
SIZES = {"hidden": 24, "layers": 2, "heads": 2, "ffn": 48, "max_positions": 40, "pool_heads": 4}
REPORTS = [["no effusions.", "heart normal."], ["heart"], [], ["normal", "no", "effusion"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A random BERT as Hugging Face writes it."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=48,
    )
    bert = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    bert.save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path / "bert"


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    return ReportTokenizer([*WORDS, *sentence_markers(5)], max_length=40, max_sentences=5)


def make(tokenizer: ReportTokenizer, **changes: object) -> Bert:
    torch.manual_seed(0)
    values = {**SIZES, "vocab_rows": len(WORDS), **changes}
    encoder = TEXT.get("bert")(BertParams(**values), tokenizer.vocab_size).eval()
    encoder.bind(tokenizer)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return encoder


def batch_of(tokenizer: ReportTokenizer, reports: list[list[str]], pad_to: int | None = None) -> TextBatch:
    return TextBatch.from_arrays(tokenizer.encode(reports, pad_to=pad_to))


@pytest.mark.parametrize("pad_to", [None, 20])
def test_bert_sees_cls_pieces_sep(tokenizer: ReportTokenizer, pad_to: int | None) -> None:
    batch = batch_of(tokenizer, REPORTS, pad_to)
    ids, mask, place = without_markers(batch, tokenizer.sep_id, tokenizer.pad_id)
    wanted = [[2, 5, 6, 8, 10, 7, 9, 10, 3], [2, 7, 3], [2, 3], [2, 9, 5, 6, 3]]
    for row, sequence in enumerate(wanted):
        length = len(sequence)
        assert ids[row, :length].tolist() == sequence
        assert not ids[row, length:].any()
        assert mask[row].tolist() == [1] * length + [0] * (ids.shape[1] - length)
        for position in range(int(batch.attention_mask[row].sum())):
            if batch.input_ids[row, position] not in torch.as_tensor(tokenizer.marker_ids):
                assert ids[row, place[row, position]] == batch.input_ids[row, position]


def test_it_is_bert(tokenizer: ReportTokenizer, folder: Path) -> None:
    from transformers import BertModel

    encoder = make(tokenizer)
    encoder.load_initial_weights(folder, tokenizer)
    batch = batch_of(tokenizer, REPORTS)
    ids, mask, _ = without_markers(batch, tokenizer.sep_id, tokenizer.pad_id)
    bert = BertModel.from_pretrained(folder, add_pooling_layer=False, output_hidden_states=True).eval()
    with torch.no_grad():
        wanted = bert(ids, attention_mask=mask).hidden_states[2]  # the folder has a layer more
        features = encoder(batch)
        pooled = encoder.pooling(wanted, mask)
    torch.testing.assert_close(features.report, pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.hidden[0, 0], wanted[0, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.words[0, 1], wanted[0, 2] + wanted[0, 3], atol=1e-5, rtol=1e-5)
    assert features.word_mask.sum(1).tolist() == [6, 1, 0, 3]
    assert features.sentence_mask.tolist()[:3] == [[True, True, False], [True, False, False], [False] * 3]
    second = (wanted[0, 5] + wanted[0, 6] + wanted[0, 7]) / 3
    torch.testing.assert_close(features.sentences[0, 1], second, atol=1e-5, rtol=1e-5)
    first = (wanted[0, 1] + wanted[0, 2] + wanted[0, 3] + wanted[0, 4]) / 3  # pieces of a word are one
    torch.testing.assert_close(features.sentences[0, 0], first, atol=1e-5, rtol=1e-5)


def test_sentence_borders_do_not_reach_it(tokenizer: ReportTokenizer) -> None:
    encoder = make(tokenizer)
    one = encoder.report(batch_of(tokenizer, [["no effusion.", "heart normal."]]))
    two = encoder.report(batch_of(tokenizer, [["no effusion. heart normal."]]))
    torch.testing.assert_close(one, two)
    assert not torch.allclose(one, encoder.report(batch_of(tokenizer, [["heart normal. no effusion."]])))


def test_padding_and_company_change_nothing(tokenizer: ReportTokenizer) -> None:
    encoder = make(tokenizer)
    short, long = (encoder(batch_of(tokenizer, REPORTS, pad_to=n)) for n in (None, 38))
    for name in ("report", "sentences", "words"):
        torch.testing.assert_close(getattr(short, name), getattr(long, name), atol=1e-5, rtol=1e-5)
    for row, report in enumerate(REPORTS):
        alone = encoder.report(batch_of(tokenizer, [report]))[0]
        torch.testing.assert_close(alone, short.report[row], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        encoder.hidden_states(batch_of(tokenizer, REPORTS)), encoder(batch_of(tokenizer, REPORTS)).hidden
    )


def test_gradients_reach_everything_but_what_is_not_seen(tokenizer: ReportTokenizer) -> None:
    encoder = make(tokenizer)
    features = encoder(batch_of(tokenizer, REPORTS))
    (features.report.sum() + features.sentences.sum() + features.words.sum()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    rows = encoder.embeddings.words.weight.grad.abs().sum(1)
    assert (rows > 0).nonzero().flatten().tolist() == [2, 3, 5, 6, 7, 8, 9, 10]


def test_multimodal_layers_are_an_option(tokenizer: ReportTokenizer) -> None:
    batch = batch_of(tokenizer, REPORTS)
    image = torch.randn(4, 3, 24, generator=torch.Generator().manual_seed(1))
    with pytest.raises(ConfigError, match="multimodal_layers"):
        make(tokenizer).multimodal(torch.zeros(4, 11, 24), batch, image)
    encoder = make(tokenizer, multimodal_layers=2)
    hidden = encoder.hidden_states(batch)
    out = encoder.multimodal(hidden, batch, image)
    assert out.shape == hidden.shape
    assert not torch.allclose(out, encoder.multimodal(hidden, batch, image.roll(1, 0)), atol=1e-3)


def test_chunks_of_the_feed_forward_part_change_nothing(tokenizer: ReportTokenizer) -> None:
    batch = batch_of(tokenizer, REPORTS)
    torch.testing.assert_close(
        make(tokenizer, ffn_chunk=3).report(batch), make(tokenizer).report(batch), atol=1e-5, rtol=1e-5
    )


def test_the_projector_is_an_option(tokenizer: ReportTokenizer) -> None:
    assert make(tokenizer).joint
    assert not make(tokenizer, projector=True).joint


def test_a_folder_with_heads_beside_the_body_loads(tokenizer: ReportTokenizer, folder: Path) -> None:
    """As CXR-BERT's: weights below `bert.`, heads beside them, a model type of its own."""
    wanted = make(tokenizer)
    wanted.load_initial_weights(folder, tokenizer)
    state = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    state["cls_projection_head.dense_to_hidden.weight"] = torch.zeros(4, 4)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "cxr-bert"}))
    found = make(tokenizer)
    found.load_initial_weights(folder, tokenizer)
    for (name, one), two in zip(wanted.state_dict().items(), found.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


@pytest.mark.parametrize(
    "change", [{"hidden": 48}, {"ffn": 49}, {"heads": 4}, {"layers": 4}, {"types": 3}, {"vocab_rows": None}]
)
def test_a_bert_that_does_not_fit_is_refused(
    tokenizer: ReportTokenizer, folder: Path, change: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        make(tokenizer, **change).load_initial_weights(folder, tokenizer)


def test_pickled_weights_are_refused(tokenizer: ReportTokenizer, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        make(tokenizer).load_initial_weights(folder, tokenizer)


def test_another_activation_is_refused(tokenizer: ReportTokenizer, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(ConfigError, match="relu"):
        make(tokenizer).load_initial_weights(folder, tokenizer)


def test_a_word_without_a_row_is_refused() -> None:
    other = ReportTokenizer([*WORDS, "more", *sentence_markers(5)], max_length=40, max_sentences=5)
    with pytest.raises(ConfigError, match="vocab_rows"):
        make(other)
    trained = ReportTokenizer.train(["no effusion"], 90, max_length=40)  # markers stand before its words
    with pytest.raises(ConfigError, match="vocab_rows"):
        make(trained)
    assert make(trained, vocab_rows=None).embeddings.words.num_embeddings == trained.vocab_size
