"""TriBERT: the sentence mask, merging, padding, sizes, and the start from a BERT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from components.base.errors import ConfigError, InputError
from components.encoders.features import TextBatch
from components.encoders.text import TEXT
from components.encoders.text._pooling import pool_sentences, pool_words, sentence_mask
from components.encoders.text.tribert import TriBert, TriBertParams
from components.encoders.tokenization import ReportTokenizer

TEXTS = ["No pleural effusion. The heart is enlarged. Calcifications remain.", "Normal chest."] * 2
SIZES = {"hidden": 32, "layers": 2, "multimodal_layers": 2, "heads": 2, "ffn": 64, "max_positions": 64}


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    return ReportTokenizer.train(TEXTS, 130, max_length=64)


@pytest.fixture(scope="module")
def encoder(tokenizer: ReportTokenizer) -> TriBert:
    torch.manual_seed(0)
    made = TEXT.get("tribert")(TriBertParams(**SIZES), vocab_size=tokenizer.vocab_size).eval()
    with torch.no_grad():  # larger than BERT's 0.02, so that attention is not flat
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return made


def batch_of(tokenizer: ReportTokenizer, *reports: list[str], pad_to: int | None = None) -> TextBatch:
    return TextBatch.from_arrays(tokenizer.encode(list(reports), pad_to=pad_to))


def test_only_marker_rows_are_narrow(tokenizer: ReportTokenizer) -> None:
    batch = batch_of(tokenizer, ["no effusion", "heart", "normal chest"], ["normal"])
    allowed = sentence_mask(batch.token_type_ids, batch.attention_mask)[:, 0]
    markers = torch.isin(batch.input_ids, torch.as_tensor(tokenizer.marker_ids))
    assert markers.sum(1).tolist() == [3, 1]
    for row in range(2):
        present = batch.attention_mask[row] > 0
        for query in range(batch.input_ids.shape[1]):
            expected = present.clone()
            if markers[row, query]:
                expected &= batch.token_type_ids[row] == batch.token_type_ids[row, query]
                expected[0] = True
            assert torch.equal(allowed[row, query], expected), (row, query)


def test_last_marker_of_a_full_sequence_is_masked_too(tokenizer: ReportTokenizer) -> None:
    batch = batch_of(tokenizer, ["no effusion", "normal chest"])
    assert batch.attention_mask.all(), "nothing is padding"
    allowed = sentence_mask(batch.token_type_ids, batch.attention_mask)[0, 0]
    second = int((batch.token_type_ids[0] == 2).nonzero()[0])
    assert torch.equal(allowed[1, second:], torch.zeros_like(allowed[1, second:]))
    assert not allowed[second, 1:second].any()
    assert allowed[second, second:].all()
    assert allowed[second, 0]


def test_another_sentence_reaches_a_marker_only_through_cls(
    tokenizer: ReportTokenizer, encoder: TriBert
) -> None:
    one = batch_of(tokenizer, ["heart normal", "no effusion"])
    ids = one.input_ids.clone()
    position = int((one.token_type_ids[0] == 2).nonzero()[1])
    ids[0, position] = (ids[0, position] + 7) % tokenizer.vocab_size
    two = one.with_ids(ids)

    def depths(batch: TextBatch) -> list[torch.Tensor]:
        allowed = sentence_mask(batch.token_type_ids, batch.attention_mask)
        hidden = encoder.embeddings(batch.input_ids, batch.token_type_ids)
        outputs = []
        for layer in encoder.text_layers:
            hidden = layer(hidden, allowed)
            outputs.append(hidden)
        return outputs

    with torch.no_grad():
        (first_a, second_a), (first_b, second_b) = depths(one), depths(two)
    assert torch.equal(first_a[0, 1], first_b[0, 1]), "[SEN_1] after the first layer"
    assert not torch.allclose(first_a[0, 0], first_b[0, 0], atol=1e-4), "[CLS] sees all"
    assert not torch.allclose(second_a[0, 1], second_b[0, 1], atol=1e-5), "[SEN_1] deeper, through [CLS]"


def test_pooling_equals_a_slow_loop(tokenizer: ReportTokenizer) -> None:
    batch = batch_of(
        tokenizer, ["hearts and calcifications", "no effusional"], ["heart"], [], ["a", "b", "c d"]
    )
    hidden = torch.randn(*batch.input_ids.shape, 8, generator=torch.Generator().manual_seed(1))
    words, word_mask = pool_words(hidden, batch)
    sentences, sentence_present = pool_sentences(hidden, batch)
    assert word_mask.sum(1).tolist() == [5, 1, 0, 4]
    assert sentence_present.sum(1).tolist() == [2, 1, 1, 3]
    for row in range(len(batch)):
        merged: dict[int, torch.Tensor] = {}
        parts: dict[int, list[torch.Tensor]] = {}
        place: dict[int, int] = {}
        for position in range(1, int(batch.attention_mask[row].sum())):
            word, sentence = int(batch.word_index[row, position]), int(batch.token_type_ids[row, position])
            if word < 0:
                parts[sentence] = [hidden[row, position]]
            else:
                merged[word] = merged.get(word, torch.zeros(8)) + hidden[row, position]
                place[word] = sentence
        for word, vector in merged.items():
            parts[place[word]].append(vector)
            torch.testing.assert_close(words[row, word], vector)
        for sentence, vectors in parts.items():
            torch.testing.assert_close(sentences[row, sentence - 1], torch.stack(vectors).mean(0))
    assert not words[~word_mask].any()


def test_padding_changes_nothing(tokenizer: ReportTokenizer, encoder: TriBert) -> None:
    reports = (["no effusion", "heart enlarged"], ["normal"], [])
    short, long = (encoder(batch_of(tokenizer, *reports, pad_to=n)) for n in (None, 60))
    torch.testing.assert_close(short.report, long.report, atol=1e-5, rtol=0)
    torch.testing.assert_close(short.sentences, long.sentences, atol=1e-5, rtol=0)
    torch.testing.assert_close(short.words, long.words, atol=1e-5, rtol=0)
    for row, report in enumerate(reports):
        alone = encoder(batch_of(tokenizer, report))
        torch.testing.assert_close(alone.report[0], short.report[row], atol=1e-5, rtol=0)


def test_report_path_equals_the_full_one(tokenizer: ReportTokenizer, encoder: TriBert) -> None:
    batch = batch_of(tokenizer, ["no effusion"], ["heart", "normal"])
    assert torch.equal(encoder.report(batch), encoder(batch).report)


def test_multimodal_layers_use_the_image_and_reach_all_parameters(
    tokenizer: ReportTokenizer, encoder: TriBert
) -> None:
    batch = batch_of(tokenizer, ["no effusion"], ["heart", "normal"])
    hidden = encoder.hidden_states(batch)
    tokens = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))
    out = encoder.multimodal(hidden, batch, tokens)
    assert out.shape == hidden.shape
    assert not torch.allclose(out, encoder.multimodal(hidden, batch, tokens.roll(1, 0)), atol=1e-3)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(out, encoder.multimodal(hidden, batch, tokens[:, order]), atol=1e-4, rtol=0)
    out.square().sum().backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None]
    encoder.zero_grad(set_to_none=True)
    assert without == []
    with pytest.raises(ValueError, match="image tokens"):
        encoder.multimodal_layers[0](hidden, None)


def test_gradients_are_finite_for_empty_reports(tokenizer: ReportTokenizer, encoder: TriBert) -> None:
    features = encoder(batch_of(tokenizer, [], []))
    assert not features.word_mask.any()
    assert features.sentence_mask.all()
    (features.sentences.sum() + features.words.sum() + features.report.sum()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in encoder.parameters())
    encoder.zero_grad(set_to_none=True)


def test_velvet_sizes() -> None:
    with torch.device("meta"):
        encoder = TriBert(TriBertParams(), vocab_size=30_572)
    upper = sum(p.numel() for p in encoder.multimodal_layers.parameters())
    total = sum(p.numel() for p in encoder.parameters())
    assert round(total / 1e6, 1) == 165.7
    assert (round((total - upper) / 1e6, 1), round(upper / 1e6, 1)) == (109.0, 56.7)


def test_subset_and_to(tokenizer: ReportTokenizer) -> None:
    batch = batch_of(tokenizer, ["no"], ["heart"], ["normal"])
    chosen = batch.subset([2, 0]).to("cpu")
    assert torch.equal(chosen.input_ids, batch.input_ids[[2, 0]])
    assert torch.equal(batch.subset(torch.tensor([1, 1])).word_index, batch.word_index[[1, 1]])
    assert len(chosen) == 2


def bert_folder(folder: Path, heads: int = 4, **sizes: int) -> tuple[Path, dict[str, torch.Tensor]]:
    from transformers import BertConfig, BertModel

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "effusion", "heart", "##s", "."]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=sizes.get("layers", 3),
        num_attention_heads=heads,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_act="gelu",
    )
    bert = BertModel(config, add_pooling_layer=False).eval()
    bert.save_pretrained(folder)
    return folder, dict(bert.state_dict())


def test_start_from_a_bert_copies_rows_and_keeps_its_function(tmp_path: Path) -> None:
    from transformers import BertModel

    folder, theirs = bert_folder(tmp_path / "bert")
    tokenizer = ReportTokenizer.from_folder(folder, max_length=64)
    encoder = TriBert(TriBertParams(**{**SIZES, "heads": 4}), tokenizer.vocab_size).eval()
    before = encoder.multimodal_layers[0].ffn_in.weight.clone()
    encoder.load_initial_weights(folder, tokenizer)
    assert torch.equal(encoder.multimodal_layers[0].ffn_in.weight, before), "upper layers stay random"
    table, source = encoder.embeddings.words.weight, theirs["embeddings.word_embeddings.weight"]
    assert torch.equal(table[2], source[2])
    assert torch.equal(table[5:10], source[5:10])
    assert torch.equal(table[torch.as_tensor(tokenizer.marker_ids)], source[2].expand(50, -1))
    types = encoder.embeddings.types.weight
    assert torch.equal(types[1:], theirs["embeddings.token_type_embeddings.weight"][0].expand(50, -1))
    assert not types[0].any()
    assert not table[0].any()

    # Without markers and with one sentence's types, two layers must do what BERT's first two do.
    ids = torch.tensor([[2, 5, 6, 7, 8, 9]])
    with torch.no_grad():
        bert = BertModel.from_pretrained(folder, add_pooling_layer=False, output_hidden_states=True).eval()
        wanted = bert(ids).hidden_states[2]
        hidden = encoder.embeddings(ids, torch.ones_like(ids))
        for layer in encoder.text_layers:
            hidden = layer(hidden, None)
    torch.testing.assert_close(hidden, wanted, atol=1e-5, rtol=0)


def test_regrouping_heads_copies_the_same_matrices(tmp_path: Path) -> None:
    folder, theirs = bert_folder(tmp_path / "bert", heads=4)
    tokenizer = ReportTokenizer.from_folder(folder, max_length=64)
    encoder = TriBert(TriBertParams(**SIZES), tokenizer.vocab_size)
    assert SIZES["heads"] == 2
    encoder.load_initial_weights(folder, tokenizer)
    prefix = "encoder.layer.1.attention.self."
    attention = encoder.text_layers[1].attention
    assert torch.equal(attention.query.weight, theirs[prefix + "query.weight"])
    assert torch.equal(attention.key_value.weight[:32], theirs[prefix + "key.weight"])
    assert torch.equal(attention.key_value.weight[32:], theirs[prefix + "value.weight"])


@pytest.mark.parametrize("change", [{"hidden": 48}, {"ffn": 65}, {"layers": 4}, {"max_positions": 65}])
def test_a_bert_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    folder, _ = bert_folder(tmp_path / "bert")
    tokenizer = ReportTokenizer.from_folder(folder, max_length=64)
    encoder = TriBert(TriBertParams(**{**SIZES, **change}), tokenizer.vocab_size)
    with pytest.raises(ConfigError, match=next(iter(change))):
        encoder.load_initial_weights(folder, tokenizer)


def test_initial_weights_need_their_own_tokenizer_and_a_folder(
    tmp_path: Path, tokenizer: ReportTokenizer
) -> None:
    folder, _ = bert_folder(tmp_path / "bert")
    encoder = TriBert(TriBertParams(**SIZES), tokenizer.vocab_size)
    with pytest.raises(ConfigError, match="vocabulary"):
        encoder.load_initial_weights(folder, tokenizer)
    with pytest.raises(InputError):
        encoder.load_initial_weights(tmp_path / "nothing", tokenizer)
