"""Sentences of a report against regions of its volume (VELVET-Med: sentence vectors and 384@6^3)."""

from __future__ import annotations

from torch import Tensor

from components.objectives import OBJECTIVES
from components.objectives._local import LocalContrast, LocalParams
from components.objectives._shared import FeaturesLike


@OBJECTIVES.register("sentence_region")
class SentenceRegion(LocalContrast):
    """Local contrast (formula in `_local`) between sentence vectors and the fourth vision scale."""

    class Params(LocalParams):
        """The paper's values; `scale` 3 of five is 6^3 regions for a 96^3 volume."""

        scale: int = 3

    name = "sentence_region"

    def tokens(self, features: FeaturesLike) -> tuple[Tensor, Tensor]:
        """Sentence vectors `[N, S, H]` and their mask."""
        text = features.text()
        return text.sentences, text.sentence_mask
