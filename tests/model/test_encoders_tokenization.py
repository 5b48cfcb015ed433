"""The report tokenizer: sequence layout, limits, determinism, round trips, and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.base.errors import ConfigError, InputError, IntegrityError, VelvetError
from components.encoders.sentences import split_sentences
from components.encoders.tokenization import ReportTokenizer

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    "No pleural effusion. There is a 1.2 cm nodule in the right upper lobe.",
    "The heart is enlarged. Aortic calcification is present. No pneumothorax.",
    "Bilateral pleural effusions with atelectasis. Café-au-lait, naïve spelling.",
] * 3


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    return ReportTokenizer.train(TEXTS, 260, max_length=64)


def tokens(tokenizer: ReportTokenizer, arrays: dict[str, np.ndarray], row: int = 0) -> list[str]:
    present = arrays["attention_mask"][row] > 0
    return [tokenizer.vocab[number] for number in arrays["input_ids"][row][present]]


def test_sequence_is_cls_then_marked_sentences_without_sep(tokenizer: ReportTokenizer) -> None:
    arrays = tokenizer.encode([["The heart is enlarged.", "No pneumothorax."], ["The heart."]])
    first = tokens(tokenizer, arrays)
    assert first[:2] == ["[CLS]", "[SEN_1]"]
    assert first.count("[SEN_2]") == 1
    assert "[SEP]" not in first
    second = first.index("[SEN_2]")
    assert arrays["token_type_ids"][0, :second].tolist() == [1] * second
    assert set(arrays["token_type_ids"][0, second : len(first)]) == {2}
    assert all(array.dtype == np.int64 for array in arrays.values())
    padding = arrays["attention_mask"][1] == 0
    assert padding.any()
    assert not arrays["token_type_ids"][1][padding].any()
    assert set(arrays["input_ids"][1][padding]) == {tokenizer.pad_id}
    assert set(arrays["word_index"][1][padding]) == {-1}


def test_word_index_joins_pieces_and_counts_through_the_report(tokenizer: ReportTokenizer) -> None:
    arrays = tokenizer.encode([["pleural hearts", "effusional"]])
    pieces = tokens(tokenizer, arrays)
    words = arrays["word_index"][0].tolist()
    assert any(piece.startswith("##") for piece in pieces)
    current, expected = -1, []
    for piece in pieces:
        if piece.startswith("["):
            expected.append(-1)
            continue
        current += not piece.startswith("##")
        expected.append(current)
    assert words == expected


def test_special_tokens_are_not_read_from_text(tokenizer: ReportTokenizer) -> None:
    arrays = tokenizer.encode([["[MASK] [SEN_2] [CLS] [PAD] heart"]])
    inner = arrays["input_ids"][0, 2:]
    assert not set(inner.tolist()) & (tokenizer.special_ids - {tokenizer.unk_id})
    assert set(arrays["token_type_ids"][0]) == {1}


@pytest.mark.parametrize("report", [[], [""], ["   ", "\n"]])
def test_empty_report_is_cls_and_one_marker(tokenizer: ReportTokenizer, report: list[str]) -> None:
    assert tokens(tokenizer, tokenizer.encode([report])) == ["[CLS]", "[SEN_1]"]
    assert tokens(tokenizer, tokenizer.encode_text([" ".join(report)])) == ["[CLS]", "[SEN_1]"]


def test_limits_on_pieces_sentences_and_length() -> None:
    small = ReportTokenizer.train(TEXTS, 200, max_length=20, max_sentences=3, max_sentence_pieces=4)
    arrays = small.encode([["heart " * 30] * 5, ["heart"]])
    row = tokens(small, arrays)
    assert len(row) <= 20
    types = arrays["token_type_ids"][0]
    assert types.max() == 3
    assert [(types == sentence).sum() for sentence in (1, 2, 3)] == [6, 5, 5]  # with [CLS] and markers
    assert arrays["input_ids"].shape[1] == len(row)
    assert small.encode([["heart"]], pad_to=20)["input_ids"].shape == (1, 20)


def test_a_marker_without_words_is_cut_with_them() -> None:
    small = ReportTokenizer.train(TEXTS, 200, max_length=7)
    row = tokens(small, small.encode([["the heart . .", "heart", "heart"]]))
    assert row[-1] != "[SEN_2]"
    assert len(row) == 6


def test_sentences_are_dropped_first_come_or_by_the_generator() -> None:
    small = ReportTokenizer.train(TEXTS, 200, max_sentences=2, max_length=64)
    report = [["no", "the", "is", "heart", "right"]]
    kept = [token for token in tokens(small, small.encode(report)) if not token.startswith("[")]
    assert kept == ["no", "the"]
    seen = set()
    for seed in range(30):
        one = small.encode(report, np.random.default_rng(seed))
        again = small.encode(report, np.random.default_rng(seed))
        assert np.array_equal(one["input_ids"], again["input_ids"])
        words = [token for token in tokens(small, one) if not token.startswith("[")]
        assert words == sorted(words, key=report[0].index), "the order is kept"
        seen.add(tuple(words))
    assert len(seen) > 5


def test_round_trip_and_hash(tokenizer: ReportTokenizer) -> None:
    again = ReportTokenizer.from_json(tokenizer.to_json())
    assert again.to_json() == tokenizer.to_json()
    assert again.hash == tokenizer.hash
    one, two = tokenizer.encode_text(TEXTS), again.encode_text(TEXTS)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    other = ReportTokenizer.train(TEXTS, 260, max_length=63)
    assert other.hash != tokenizer.hash


def test_training_is_the_same_in_every_process_and_order() -> None:
    code = (
        "from components.encoders.tokenization import ReportTokenizer as R;"
        f"t={TEXTS!r}; print(R.train(t, 260).hash, R.train(t[::-1], 260).hash)"
    )
    hashes = set()
    for threads in ("1", "2", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={"PATH": "", "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
        )
        hashes.update(run.stdout.split())
    assert len(hashes) == 1


def test_import_needs_no_torch() -> None:
    code = (
        "import sys; from components.encoders.tokenization import ReportTokenizer as R;"
        "import components.encoders; R.train(['a b'], 70).encode_text(['a b.']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'monai', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"vocab": ["[PAD]"]},
        {"vocab": "abc"},
        {"vocab": [1, 2]},
        {"max_length": "64"},
        {"max_length": 0},
        {"lowercase": 1},
        {"extra": 1},
    ],
)
def test_a_changed_file_is_refused(tokenizer: ReportTokenizer, change: dict[str, object]) -> None:
    state = json.loads(tokenizer.to_json()) | change
    with pytest.raises(IntegrityError):
        ReportTokenizer.from_json(json.dumps(state))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000])
def test_what_is_no_tokenizer_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        ReportTokenizer.from_json(text)


def test_a_bert_folder_gives_its_vocabulary_and_gains_markers(tmp_path) -> None:
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "heart", "##s", "the"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocab) + "\n")
    from_text = ReportTokenizer.from_folder(tmp_path, max_length=32)
    assert from_text.vocab[:8] == tuple(vocab)
    assert from_text.vocab_size == 58
    assert tokens(from_text, from_text.encode([["The Hearts"]]))[2:] == ["the", "heart", "##s"]

    from tokenizers import Tokenizer, models, normalizers

    engine = Tokenizer(models.WordPiece({t: n for n, t in enumerate(vocab)}, unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(lowercase=True)
    engine.save(str(tmp_path / "tokenizer.json"))
    assert ReportTokenizer.from_folder(tmp_path, max_length=32).hash == from_text.hash

    (tmp_path / "tokenizer.json").write_text(from_text.to_json())
    assert ReportTokenizer.from_folder(tmp_path).hash == from_text.hash


def test_a_folder_without_a_vocabulary_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError):
        ReportTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}}}')
    with pytest.raises(ConfigError):
        ReportTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError):
        ReportTokenizer.from_folder(tmp_path)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.characters(codec=None), max_size=60), min_size=1, max_size=4))
def test_any_text_gives_arrays_that_hold_together(texts: list[str]) -> None:
    tokenizer = ReportTokenizer.train(TEXTS, 200, max_length=32)
    try:
        arrays = tokenizer.encode_text(texts)
    except VelvetError:
        pytest.fail("no text is an error")
    ids, types, mask, words = (
        arrays[n] for n in ("input_ids", "token_type_ids", "attention_mask", "word_index")
    )
    assert ids.min() >= 0
    assert ids.max() < tokenizer.vocab_size
    assert ids.shape[1] <= 32
    assert ((types > 0) == (mask > 0)).all()
    assert (np.diff(mask, axis=1) <= 0).all()
    assert (ids[:, 0] == tokenizer.cls_id).all()
    assert (ids[:, 1] == tokenizer.marker_ids[0]).all()
    for row in words:
        inner = row[row >= 0]
        assert inner.tolist() == sorted(inner)
        assert len(set(inner)) == (inner.max() + 1 if len(inner) else 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No effusion. Heart normal.", ["No effusion.", "Heart normal."]),
        ("A 1.2 cm nodule.", ["A 1.2 cm nodule."]),
        ("Discussed with Dr. White today. Stable.", ["Discussed with Dr. White today.", "Stable."]),
        ("See image no. 12 of series 3. Stable.", ["See image no. 12 of series 3.", "Stable."]),
        ("1. Nodule.\n2. Effusion.", ["1. Nodule.", "2. Effusion."]),
        ("- Nodule\n- Effusion", ["- Nodule", "- Effusion"]),
        ("Wrapped\nline.\n\nNext block", ["Wrapped line.", "Next block"]),
        ("Effusion? No. Heart normal.", ["Effusion?", "No.", "Heart normal."]),
        ("", []),
    ],
)
def test_sentence_splitting(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


def test_splitting_and_encoding_are_linear(tokenizer: ReportTokenizer) -> None:
    import time

    def seconds(text: str) -> float:
        start = time.perf_counter()
        split_sentences(text)
        return time.perf_counter() - start

    for unit in ("Dr. A ", ". ", "\n \n", "1. ", ".  \n"):
        small, large = (min(seconds(unit * n) for _ in range(3)) for n in (20_000, 80_000))
        assert large < 12 * small + 0.05, unit
