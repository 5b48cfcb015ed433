"""Reports to token ids: WordPiece with a marker before every sentence. No torch: a server imports this.

A report is `[CLS]` (type 1), then for sentence i `[SEN_i]` and its pieces (type i); there is no `[SEP]`.
Special tokens are never read from a report's text: "[MASK]" typed in a report is three ordinary pieces.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.base.errors import ConfigError, IntegrityError
from components.base.files import read_json
from components.encoders.sentences import split_sentences
from components.encoders.vocabulary import (
    MAX_SENTENCES,
    PREFIX,
    SPECIAL_TOKENS,
    engine_of,
    learn_vocabulary,
    read_vocabulary,
    sentence_markers,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = "velvet.report-tokenizer/1"
Arrays = dict[str, np.ndarray]


class ReportTokenizer:
    """WordPiece over report sentences; equal vocabularies and settings have equal `hash`."""

    def __init__(
        self,
        vocab: Sequence[str],
        *,
        lowercase: bool = True,
        max_length: int = 512,
        max_sentences: int = MAX_SENTENCES,
        max_sentence_pieces: int = 200,
    ) -> None:
        """`vocab` in the order of ids, special tokens and sentence markers included."""
        self.vocab = tuple(vocab)
        self.lowercase = lowercase
        self.max_length, self.max_sentences = max_length, max_sentences
        self.max_sentence_pieces = max_sentence_pieces
        ids = {token: number for number, token in enumerate(self.vocab)}
        markers = sentence_markers(max_sentences)
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

        The same texts give the same vocabulary. `limits` are the limits of `__init__`.
        """
        vocab = learn_vocabulary(texts, vocab_size, min_frequency, limits.get("max_sentences", MAX_SENTENCES))
        return cls(vocab, lowercase=True, **limits)

    @classmethod
    def from_folder(cls, folder: Path, **limits: int) -> ReportTokenizer:
        """Read a local `tokenizer.json` (ours or a WordPiece of Hugging Face) or `vocab.txt`; adds markers."""
        ours = folder / "tokenizer.json"
        if ours.is_file():
            state = read_json(ours)
            if isinstance(state, dict) and state.get("format") == FORMAT:
                return cls.from_json(json.dumps(state))
        vocab, lowercase = read_vocabulary(folder)
        known = set(vocab)
        markers = sentence_markers(limits.get("max_sentences", MAX_SENTENCES))
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
            vocab, kind, lowercase = (state.pop(key) for key in ("vocab", "format", "lowercase"))
            texts = isinstance(vocab, list) and all(isinstance(token, str) for token in vocab)
            limits = all(type(value) is int for value in state.values())
            if kind != FORMAT or not texts or not limits or not isinstance(lowercase, bool):
                raise ValueError(kind)
            return cls(vocab, lowercase=lowercase, **state)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError):
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
        flat = [sentence.encode("utf-8", "replace").decode() for report in reports for sentence in report]
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
            self._engine = engine_of(self.vocab, self.lowercase)
        return self._engine

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}
