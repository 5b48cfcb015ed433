"""Surface metrics of written text against a reference: BLEU, ROUGE, METEOR, CIDEr-D, BERTScore.

Each answers a `Metric` of study weights, so that the patient-level bootstrap of `components.evaluation.statistics`
serves them too: BLEU is a corpus metric (its counts are weighted), the others are means over studies. All are nearly
flat between good and bad reports: they describe the writing, they do not rank models.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from components.base.errors import InputError
from components.evaluation import statistics as st

ORDER = 4
CIDER_SIGMA = 6.0
BERTSCORE_BATCH = 16
BERTSCORE_POSITIONS = 512
RULE = (
    "lower case, sacreBLEU's 13a tokens (words only but for BLEU); BLEU is the corpus's; ROUGE-L and ROUGE-1 are F1; "
    "METEOR matches exact words and Porter stems, no synonyms; CIDEr-D's document frequencies are of the "
    "test references"
)


def words(text: str) -> list[str]:
    """The lower-case tokens of a text that hold a letter or digit (sacreBLEU's 13a tokenisation)."""
    return [token for token in _tokenizer()(text.lower()).split() if any(map(str.isalnum, token))]


@cache
def _tokenizer() -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()


def bleu(written: Sequence[str], references: Sequence[str], order: int = ORDER) -> st.Metric:
    """Corpus BLEU in 0..1 with n-grams up to `order` (Papineni et al. 2002), no smoothing; counts by sacreBLEU."""
    from sacrebleu.metrics.bleu import BLEU

    counter = BLEU(lowercase=True, max_ngram_order=order, smooth_method="none", effective_order=True)
    scores = [counter.sentence_score(said, [truth]) for said, truth in zip(written, references, strict=True)]
    right = np.array([score.counts for score in scores], dtype=np.float64).reshape(-1, order)
    total = np.array([score.totals for score in scores], dtype=np.float64).reshape(-1, order)
    lengths = np.array([[score.sys_len, score.ref_len] for score in scores], dtype=np.float64).reshape(-1, 2)

    def metric(weights: st.Array) -> st.Array:
        hits, grams = weights @ right, weights @ total
        said, truth = (weights @ lengths).T
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(grams > 0, hits / np.where(grams > 0, grams, 1), 0.0)
            mean = np.exp(np.where(precision > 0, np.log(precision), -np.inf).mean(1))
            brevity = np.where(said > 0, np.exp(np.minimum(0.0, 1 - truth / np.where(said > 0, said, 1))), 0)
        return np.where(weights.sum(1) > 0, mean * brevity, np.nan)

    return metric


def rouge_l(written: Sequence[str], references: Sequence[str]) -> st.Metric:
    """Mean ROUGE-L F1 (Lin 2004): the longest common subsequence of words."""
    pairs = zip(map(words, written), map(words, references), strict=True)
    return st.weighted_mean(np.array([_f1(common_subsequence(a, b), len(a), len(b)) for a, b in pairs]))


def rouge_1(written: Sequence[str], references: Sequence[str]) -> st.Metric:
    """Mean ROUGE-1 F1: the words that both have, each as often as in the one that has it less."""
    pairs = zip(map(words, written), map(words, references), strict=True)
    values = [_f1((Counter(a) & Counter(b)).total(), len(a), len(b)) for a, b in pairs]
    return st.weighted_mean(np.array(values))


def _f1(both: int, said: int, truth: int) -> float:
    return 2 * both / (said + truth) if said + truth else 0.0


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, by bit-parallel dynamic programming (Hyyrö 2004)."""
    masks: dict[str, int] = {}
    for place, word in enumerate(first):
        masks[word] = masks.get(word, 0) | 1 << place
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        matched = row & masks.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(first) - row.bit_count()


class _Stemmer:
    """Porter's stemmer with a memory."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = lru_cache(maxsize=65536)(PorterStemmer().stem)


class _NoSynonyms:
    """In the place of WordNet, which would have to be downloaded."""

    def synsets(self, word: str) -> list[Any]:
        """No synonyms of any word."""
        return []


@cache
def _stemmer() -> Any:
    return _Stemmer()


def meteor(written: Sequence[str], references: Sequence[str]) -> st.Metric:
    """Mean METEOR (Banerjee & Lavie 2005) by NLTK, with exact and stem matches only."""
    from nltk.translate.meteor_score import single_meteor_score

    none: Any = _NoSynonyms()
    values = [
        single_meteor_score(words(truth), words(said), stemmer=_stemmer(), wordnet=none)
        for said, truth in zip(written, references, strict=True)
    ]
    return st.weighted_mean(np.array(values, dtype=np.float64))


class CiderD:
    """CIDEr-D (Vedantam et al. 2015): tf-idf n-grams, clipped, with a penalty on length; from 0 to 10."""

    def __init__(self, references: Sequence[str]) -> None:
        """Document frequencies are of these references, one a study."""
        counted = [_ngrams(text) for text in references]
        self._frequency = Counter(gram for grams in counted for gram in grams)
        self._log_count = math.log(max(len(references), 1))
        self._references = [self._vectors(grams) for grams in counted]

    def values(self, written: Sequence[str]) -> st.Array:
        """The score [N] of a text for each reference, in their order."""
        made = [self._vectors(_ngrams(text)) for text in written]
        return np.array([_cider(said, truth) for said, truth in zip(made, self._references, strict=True)])

    def metric(self, written: Sequence[str]) -> st.Metric:
        """The mean of `values`."""
        return st.weighted_mean(self.values(written))

    def _vectors(self, grams: Counter[tuple[str, ...]]) -> tuple[list[dict[Any, float]], list[float], int]:
        """By order: the tf-idf vector and its length; and the number of words."""
        vectors: list[dict[Any, float]] = [{} for _ in range(ORDER)]
        for gram, count in grams.items():
            weight = self._log_count - math.log(max(1, self._frequency[gram]))
            vectors[len(gram) - 1][gram] = count * weight
        norms = [math.sqrt(sum(value * value for value in vector.values())) for vector in vectors]
        return vectors, norms, sum(count for gram, count in grams.items() if len(gram) == 1)


def _ngrams(text: str) -> Counter[tuple[str, ...]]:
    tokens = words(text)
    return Counter(
        tuple(tokens[at : at + size]) for size in range(1, ORDER + 1) for at in range(len(tokens) - size + 1)
    )


def _cider(said: Any, truth: Any) -> float:
    total = 0.0
    for vector, norm, other, other_norm in zip(said[0], said[1], truth[0], truth[1], strict=True):
        product = sum(
            min(value, other.get(gram, 0.0)) * other.get(gram, 0.0) for gram, value in vector.items()
        )
        if norm and other_norm:
            total += product / (norm * other_norm)
    return 10 / ORDER * total * math.exp(-((said[2] - truth[2]) ** 2) / (2 * CIDER_SIGMA**2))


class BertScore:
    """BERTScore F1 (Zhang et al. 2020) with a local model's last layer: no baseline rescaling, no idf."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds a Hugging Face encoder with its tokenizer; nothing is downloaded."""
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError):
            raise InputError(
                "the folder of the BERTScore model cannot be read",
                rule="bertscore.model",
                fix="give a local folder with config, weights and tokenizer, or null",
            ) from None

    def metric(self, written: Sequence[str], references: Sequence[str]) -> st.Metric:
        """The mean F1 over studies; texts are cut at 512 pieces."""
        pairs = zip(self._vectors(written), self._vectors(references), strict=True)
        return st.weighted_mean(np.array([greedy_f1(said, truth) for said, truth in pairs]))

    def _vectors(self, texts: Sequence[str]) -> list[st.Array]:
        """Unit vectors [L, H] of each text's pieces, without special tokens."""
        import torch

        found: list[st.Array] = []
        with torch.inference_mode():
            for start in range(0, len(texts), BERTSCORE_BATCH):
                encoded = self._tokenizer(
                    list(texts[start : start + BERTSCORE_BATCH]),
                    padding=True,
                    truncation=True,
                    max_length=BERTSCORE_POSITIONS,
                    return_special_tokens_mask=True,
                    return_tensors="pt",
                )
                special = encoded.pop("special_tokens_mask").bool() | ~encoded["attention_mask"].bool()
                hidden = self._model(**encoded).last_hidden_state
                hidden = torch.nn.functional.normalize(hidden.double(), dim=-1)
                found += [one[~skip].numpy() for one, skip in zip(hidden, special, strict=True)]
        return found


def greedy_f1(said: st.Array, truth: st.Array) -> float:
    """F1 of greedy matching of unit vectors [L, H] and [M, H]: each piece with its most similar counterpart."""
    if not len(said) or not len(truth):
        return 0.0
    similar = said @ truth.T
    precision, recall = float(similar.max(1).mean()), float(similar.max(0).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
