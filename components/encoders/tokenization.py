"""Reports to token ids: WordPiece with a marker before every sentence. No torch: a server imports this.

A report is `[CLS]` (type 1), then for sentence i `[SEN_i]` and its pieces (type i); there is no `[SEP]`.
Special tokens are never read from a report's text: "[MASK]" typed in a report is three ordinary pieces.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.base.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PREFIX = "##"
FORMAT = "velvet.report-tokenizer/1"
Arrays = dict[str, np.ndarray]

_BOUNDARY = re.compile(r"(?<=[.!?])[ \t]+(?=[A-Z0-9(\[*-])|\n[ \t]*\n\s*|\n(?=[ \t]*(?:[-*]|\d+[.)])\s)")
_NOT_AN_END = re.compile(
    r"(?:^|[\s(])(?:dr|mr|mrs|ms|prof|vs|e\.g|i\.e|cf|no|fig|im|se|approx|\d{1,2})\.$", re.I
)


def sentence_marker(number: int) -> str:
    """The token before sentence `number` (from 1)."""
    return f"[SEN_{number}]"


def split_sentences(text: str) -> list[str]:
    """Plain text to sentences: at `.!?` before a capital or a digit, at blank lines, at list items."""
    sentences: list[str] = []
    for piece in _BOUNDARY.split(text):
        piece = " ".join(piece.split())
        if not piece:
            continue
        if sentences and _NOT_AN_END.search(sentences[-1]):
            sentences[-1] += f" {piece}"
        else:
            sentences.append(piece)
    return sentences


class ReportTokenizer:
    """WordPiece over report sentences; equal vocabularies and settings have equal `hash`."""

    def __init__(
        self,
        vocab: Sequence[str],
        *,
        lowercase: bool = True,
        max_length: int = 512,
        max_sentences: int = 50,
        max_sentence_pieces: int = 200,
    ) -> None:
        """`vocab` in the order of ids, special tokens and sentence markers included."""
        self.vocab = tuple(vocab)
        self.lowercase = lowercase
        self.max_length, self.max_sentences = max_length, max_sentences
        self.max_sentence_pieces = max_sentence_pieces
        ids = {token: number for number, token in enumerate(self.vocab)}
        markers = [sentence_marker(number + 1) for number in range(max_sentences)]
        missing = [token for token in (*SPECIAL_TOKENS, *markers) if token not in ids]
        if (
            missing
            or len(ids) != len(self.vocab)
            or min(max_length - 1, max_sentences, max_sentence_pieces) < 1
        ):
            reason = f"lacks {missing[0]}" if missing else "repeats a token or has a limit below 1"
            raise ConfigError(
                f"the tokenizer's vocabulary {reason}",
                rule="tokenizer.vocab",
                fix="train the tokenizer again or load an unchanged tokenizer.json",
            )
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[t] for t in SPECIAL_TOKENS)
        self.marker_ids = np.array([ids[marker] for marker in markers], dtype=np.int64)
        self.special_ids = frozenset(
            number for token, number in ids.items() if token in SPECIAL_TOKENS or token.startswith("[SEN_")
        )
        self._continues = np.array([token.startswith(PREFIX) for token in self.vocab])
        self._engine: Tokenizer | None = None

    @property
    def vocab_size(self) -> int:
        """The number of token ids, special tokens and markers included."""
        return len(self.vocab)

    @property
    def hash(self) -> str:
        """Hex SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, *, min_frequency: int = 2, **limits: int
    ) -> ReportTokenizer:
        """Learn a lower-case WordPiece vocabulary of at most `vocab_size` ids (the alphabet is always kept).

        Deterministic: the alphabet is sorted beforehand, as the trainer numbers unseen continuation
        characters in the order of a hash map. `limits` are the limits of `__init__`.
        """
        from tokenizers import Tokenizer, models, trainers

        texts = list(texts)
        markers = [sentence_marker(number + 1) for number in range(limits.get("max_sentences", 50))]
        engine = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        engine.normalizer, engine.pre_tokenizer = _front(lowercase=True)
        alphabet = sorted(
            {char for text in texts for char in engine.normalizer.normalize_str(text) if not char.isspace()}
        )
        fixed = [*SPECIAL_TOKENS, *markers, *alphabet, *(PREFIX + char for char in alphabet)]
        trainer = trainers.WordPieceTrainer(
            vocab_size=max(vocab_size, len(fixed)),
            min_frequency=min_frequency,
            special_tokens=fixed,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        engine.train_from_iterator(texts, trainer)
        learnt = engine.get_vocab(with_added_tokens=True)
        return cls(sorted(learnt, key=learnt.__getitem__), **limits)

    @classmethod
    def from_folder(cls, folder: Path, **limits: int) -> ReportTokenizer:
        """Read a local `tokenizer.json` (ours or a WordPiece of Hugging Face) or `vocab.txt`; adds markers."""
        vocab, lowercase = _read_vocab(folder)
        if isinstance(vocab, ReportTokenizer):
            return vocab
        markers = [sentence_marker(number + 1) for number in range(limits.get("max_sentences", 50))]
        known = set(vocab)
        return cls([*vocab, *(m for m in markers if m not in known)], lowercase=lowercase, **limits)

    def to_json(self) -> str:
        """Canonical JSON that `from_json` reads back."""
        state = {
            "format": FORMAT,
            "lowercase": self.lowercase,
            "max_length": self.max_length,
            "max_sentences": self.max_sentences,
            "max_sentence_pieces": self.max_sentence_pieces,
            "vocab": self.vocab,
        }
        return json.dumps(state, ensure_ascii=False, indent=0, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ReportTokenizer:
        """The tokenizer of `to_json`; anything else is an `IntegrityError`."""
        try:
            state = json.loads(text)
            if state.pop("format") != FORMAT or not all(isinstance(token, str) for token in state["vocab"]):
                raise ValueError
            return cls(state.pop("vocab"), **state)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise IntegrityError(
                "tokenizer.json is not a report tokenizer",
                rule="tokenizer.format",
                fix="restore the encoder's folder from where it was written",
            ) from None

    def encode(
        self,
        reports: Sequence[Sequence[str]],
        generator: np.random.Generator | None = None,
        *,
        pad_to: int | None = None,
    ) -> Arrays:
        """Reports as lists of sentences -> int64 [B, L] arrays, named as the fields of `TextBatch`.

        Of more than `max_sentences` sentences the first are kept, or with `generator` a random choice, in
        order. L is the longest of the batch, or `pad_to`; longer reports are cut at `max_length`.
        """
        rows = [self._sequence(pieces, generator) for pieces in self._pieces(reports)]
        limit = self.max_length if pad_to is None else min(self.max_length, pad_to)
        rows = [self._cut(ids, types, limit) for ids, types in rows]
        length = pad_to or max((len(ids) for ids, _ in rows), default=2)
        shape = (len(rows), length)
        arrays = {
            "input_ids": np.full(shape, self.pad_id, dtype=np.int64),
            "token_type_ids": np.zeros(shape, dtype=np.int64),
            "attention_mask": np.zeros(shape, dtype=np.int64),
            "word_index": np.full(shape, -1, dtype=np.int64),
        }
        special = np.zeros(self.vocab_size, dtype=bool)
        special[[self.pad_id, self.cls_id, *self.marker_ids]] = True
        for row, (ids, types) in enumerate(rows):
            count = len(ids)
            arrays["input_ids"][row, :count] = ids
            arrays["token_type_ids"][row, :count] = types
            arrays["attention_mask"][row, :count] = 1
            word = ~special[ids]
            starts = word & (~self._continues[ids] | special[np.roll(ids, 1)])
            arrays["word_index"][row, :count] = np.where(word, np.cumsum(starts) - 1, -1)
        return arrays

    def encode_text(self, texts: Sequence[str], *, pad_to: int | None = None) -> Arrays:
        """Plain reports, split into sentences here -> the arrays of `encode`."""
        return self.encode([split_sentences(text) for text in texts], pad_to=pad_to)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, without special tokens; for people, not exactly the input."""
        words: list[str] = []
        for number in ids:
            token = self.vocab[int(number)]
            if token.startswith(PREFIX) and words:
                words[-1] += token.removeprefix(PREFIX)
            elif int(number) not in self.special_ids or int(number) == self.unk_id:
                words.append(token)
        return " ".join(words)

    def _pieces(self, reports: Sequence[Sequence[str]]) -> list[list[np.ndarray]]:
        """The piece ids of every sentence; sentences without any piece are left out."""
        flat = [sentence for report in reports for sentence in report]
        encoded = iter(self._wordpiece().encode_batch(flat, add_special_tokens=False))
        limit = self.max_sentence_pieces
        pieces: list[list[np.ndarray]] = []
        for report in reports:
            ids = [np.array(next(encoded).ids[:limit], dtype=np.int64) for _ in report]
            pieces.append([sentence for sentence in ids if len(sentence)])
        return pieces

    def _sequence(
        self, sentences: list[np.ndarray], generator: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if len(sentences) > self.max_sentences:
            chosen = np.arange(self.max_sentences)
            if generator is not None:
                chosen = np.sort(generator.choice(len(sentences), self.max_sentences, replace=False))
            sentences = [sentences[number] for number in chosen]
        sentences = sentences or [np.zeros(0, dtype=np.int64)]
        ids, types = [np.array([self.cls_id])], [np.array([1])]
        for number, pieces in enumerate(sentences):
            ids += [self.marker_ids[number : number + 1], pieces]
            types.append(np.full(len(pieces) + 1, number + 1))
        return np.concatenate(ids), np.concatenate(types).astype(np.int64)

    def _cut(self, ids: np.ndarray, types: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """At most `limit` positions; a marker that lost all of its words goes too."""
        count = min(len(ids), limit)
        if 2 < count < len(ids) and ids[count - 1] in self.marker_ids:
            count -= 1
        return ids[:count], types[:count]

    def _wordpiece(self) -> Tokenizer:
        if self._engine is None:
            from tokenizers import Tokenizer, models

            ids = {token: number for number, token in enumerate(self.vocab)}
            engine = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", continuing_subword_prefix=PREFIX))
            engine.normalizer, engine.pre_tokenizer = _front(self.lowercase)
            self._engine = engine
        return self._engine

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}


def _front(lowercase: bool) -> tuple[Any, Any]:
    """BERT's normaliser and pre-tokeniser."""
    from tokenizers import normalizers, pre_tokenizers

    return normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()


def _read_vocab(folder: Path) -> tuple[list[str] | ReportTokenizer, bool]:
    """The tokens in the order of ids and whether text is lower-cased."""
    file = folder / "tokenizer.json"
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        state = json.loads(text)
        if state.get("format") == FORMAT:
            return ReportTokenizer.from_json(text), True
        model = state.get("model", {})
        if model.get("type", "WordPiece") == "WordPiece" and isinstance(model.get("vocab"), dict):
            vocab = {**model["vocab"], **{t["content"]: t["id"] for t in state.get("added_tokens", [])}}
            return sorted(vocab, key=vocab.__getitem__), bool(
                (state.get("normalizer") or {}).get("lowercase", True)
            )
    elif (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line], True
    raise ConfigError(
        f"{folder.name} holds neither a WordPiece tokenizer.json nor a vocab.txt",
        rule="tokenizer.folder",
        fix="give the local folder of a BERT model, or null to train a tokenizer on the cohort",
    )
