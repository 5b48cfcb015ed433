"""Independent random streams: any study can be made alone, in any order, with the same result."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def stream(seed: int, *words: str | int) -> np.random.Generator:
    """A generator that depends on the seed and on words such as ("patient", 3, "body"), on nothing else."""
    keys = [zlib.crc32(word.encode()) if isinstance(word, str) else word for word in words]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *keys])))


def choose(rng: np.random.Generator, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
    """One of `options`, with equal or given relative weights."""
    if weights is None:
        return options[int(rng.integers(len(options)))]
    cumulative = np.cumsum(np.asarray(weights, dtype=np.float64))
    return options[int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))]


def between(rng: np.random.Generator, low: float, high: float, digits: int = 3) -> float:
    """A uniform number in [low, high], rounded so that a specification is short to print."""
    return round(float(rng.uniform(low, high)), digits)
