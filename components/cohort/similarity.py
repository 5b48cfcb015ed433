"""Near-duplicates: reports by simhash verified on shingles, volumes by the distance of their average hashes.

Two reports are near-duplicates when the 64-bit simhashes of their word 3-shingles lie within `max_simhash_distance`
bits (Charikar 2002) *and* the Jaccard index of their shingles reaches `min_jaccard`: the hash finds candidates, the
shingles decide, so that two reports from one template that differ in their findings stay apart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from components.base.config import Config

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Words = npt.NDArray[np.uint64]

SHINGLE = 3
BLOCK = 2048
_WORD = re.compile(r"[^\W_]+(?:\.\d+)?")
_TAG = re.compile(r"\[[A-Z_]+\]")


class Similarity(Config):
    """When two reports or two volumes count as one.

    `max_volume_bits` is the greatest Hamming distance of two 2,048-bit average hashes; reports of fewer than
    `min_report_words` words are compared by their whole normalised text only.
    """

    max_simhash_distance: int = Field(default=8, ge=0, le=31)
    min_jaccard: float = Field(default=0.9, gt=0.0, le=1.0)
    min_report_words: int = Field(default=20, ge=1)
    max_volume_bits: int = Field(default=24, ge=0, le=512)


def normalise(text: str) -> list[str]:
    """The words of a report: lower case, without punctuation and without the tags of de-identification."""
    return _WORD.findall(_TAG.sub(" ", text).lower())


def shingles(words: Sequence[str]) -> frozenset[int]:
    """64-bit hashes of the runs of three words (of the whole text where it is shorter)."""
    count = max(1, len(words) - SHINGLE + 1)
    runs = (" ".join(words[start : start + SHINGLE]) for start in range(count))
    return frozenset(
        int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "big") for run in runs
    )


def simhash(items: frozenset[int]) -> int:
    """The 64-bit simhash of a set of 64-bit hashes."""
    import numpy as np

    bits = np.unpackbits(np.array(sorted(items), dtype=">u8").view(np.uint8).reshape(-1, 8), axis=1)
    majority = bits.sum(axis=0, dtype=np.int64) * 2 > len(items)
    return int.from_bytes(np.packbits(majority).tobytes(), "big")


def jaccard(first: frozenset[int], second: frozenset[int]) -> float:
    """Shared shingles over all shingles."""
    return len(first & second) / len(first | second)


def near_pairs(codes: Words, limit: int) -> list[tuple[int, int]]:
    """Every pair (i < j) of rows of `codes` [N, W] whose Hamming distance is at most `limit`, in order."""
    import numpy as np

    pairs: list[tuple[int, int]] = []
    step = max(1, BLOCK // max(1, codes.shape[1] // 4))
    for start in range(0, len(codes), step):
        rows = codes[start : start + step]
        for other in range(start, len(codes), step):
            columns = codes[other : other + step]
            distance = np.zeros((len(rows), len(columns)), dtype=np.int32)
            for word in range(codes.shape[1]):
                distance += np.bitwise_count(rows[:, word, None] ^ columns[None, :, word])
            for first, second in np.argwhere(distance <= limit):
                if start + first < other + second:
                    pairs.append((int(start + first), int(other + second)))
    return sorted(pairs)


def report_pairs(texts: Mapping[str, str], limits: Similarity) -> list[tuple[str, str]]:
    """Pairs of keys (in order) whose reports are near-duplicates."""
    import numpy as np

    keys = sorted(key for key, text in texts.items() if normalise(text))
    found: set[tuple[str, str]] = set()
    first_with: dict[tuple[str, ...], str] = {}
    long: list[str] = []
    sets: dict[str, frozenset[int]] = {}
    for key in keys:
        words = normalise(texts[key])
        known = first_with.setdefault(tuple(words), key)
        if known != key:  # the same words: one edge to the first is enough for a group
            found.add((known, key))
        elif len(words) >= limits.min_report_words:
            long.append(key)
            sets[key] = shingles(words)
    if long:
        codes = np.array([[simhash(sets[key])] for key in long], dtype=np.uint64)
        for first, second in near_pairs(codes, limits.max_simhash_distance):
            if jaccard(sets[long[first]], sets[long[second]]) >= limits.min_jaccard:
                found.add((long[first], long[second]))
    return sorted(found)


def volume_pairs(hashes: Mapping[str, str], limits: Similarity) -> list[tuple[str, str]]:
    """Pairs of series keys (in order) whose average hashes (hex) are near each other."""
    import numpy as np

    keys = sorted(hashes)
    if not keys:
        return []
    codes = np.array([np.frombuffer(bytes.fromhex(hashes[key]), dtype=">u8") for key in keys])
    pairs = near_pairs(codes.astype(np.uint64), limits.max_volume_bits)
    return [(keys[first], keys[second]) for first, second in pairs]
