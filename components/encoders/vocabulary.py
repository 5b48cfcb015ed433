"""WordPiece vocabularies: learnt from texts, or read from the local folder of a BERT. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import ConfigError
from components.base.files import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_SENTENCES = 50
PREFIX = "##"


def sentence_markers(count: int) -> list[str]:
    """The tokens that stand before sentences 1 to `count`."""
    return [f"[SEN_{number + 1}]" for number in range(count)]


def engine_of(vocab: Sequence[str], lowercase: bool) -> Tokenizer:
    """A WordPiece over `vocab` (in the order of ids) that reads no special token from text."""
    from tokenizers import Tokenizer, models

    ids = {token: number for number, token in enumerate(vocab)}
    engine = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", continuing_subword_prefix=PREFIX))
    engine.normalizer, engine.pre_tokenizer = _front(lowercase)
    return engine


def learn_vocabulary(
    texts: Iterable[str], vocab_size: int, min_frequency: int, num_sentences: int
) -> list[str]:
    """At most `vocab_size` lower-case tokens in the order of ids; the whole alphabet is always kept.

    Deterministic: the alphabet is given in sorted order, as the trainer numbers continuation characters
    that it has not seen in the order of a hash map, and breaks ties between merges by those numbers.
    """
    from tokenizers import Tokenizer, models, trainers

    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    engine = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer, engine.pre_tokenizer = _front(lowercase=True)
    seen = {char for text in texts for char in engine.normalizer.normalize_str(text)}
    alphabet = sorted(char for char in seen if not char.isspace())
    markers = sentence_markers(num_sentences)
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
    return sorted(learnt, key=learnt.__getitem__)


def read_vocabulary(folder: Path) -> tuple[list[str], bool]:
    """The tokens of a folder's WordPiece `tokenizer.json` or `vocab.txt`, and whether text is lower-cased.

    Raises `ConfigError` where there is neither; the tokens' place is their id.
    """
    if (folder / "tokenizer.json").is_file():
        state: dict[str, Any] = read_json(folder / "tokenizer.json")
        model = state.get("model", {})
        if model.get("type", "WordPiece") == "WordPiece" and isinstance(model.get("vocab"), dict):
            added = {token["content"]: token["id"] for token in state.get("added_tokens", [])}
            vocab = {**model["vocab"], **added}
            if sorted(vocab.values()) == list(range(len(vocab))):
                lowercase = (state.get("normalizer") or {}).get("lowercase", True)
                return sorted(vocab, key=vocab.__getitem__), bool(lowercase)
    elif (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        return lines[:-1] if lines[-1] == "" else lines, True
    raise ConfigError(
        f"{folder.name} holds neither a WordPiece tokenizer.json nor a vocab.txt",
        rule="tokenizer.folder",
        fix="give the local folder of a BERT model, or null to train a tokenizer on the cohort",
    )


def _front(lowercase: bool) -> tuple[Any, Any]:
    """BERT's normaliser and pre-tokeniser."""
    from tokenizers import normalizers, pre_tokenizers

    return normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
