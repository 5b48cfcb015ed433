"""Words of a report against patches of its volume (VELVET-Med: merged words and 192@12^3)."""

from __future__ import annotations

from torch import Tensor

from components.objectives import OBJECTIVES
from components.objectives._local import LocalContrast, LocalParams
from components.objectives._shared import FeaturesLike


@OBJECTIVES.register("word_patch")
class WordPatch(LocalContrast):
    """Local contrast (formula in `_local`) between word vectors and the third vision scale."""

    class Params(LocalParams):
        """The paper's values; `scale` 2 of five is 12^3 patches for a 96^3 volume."""

        scale: int = 2

    name = "word_patch"

    def tokens(self, features: FeaturesLike) -> tuple[Tensor, Tensor]:
        """Word vectors `[N, W, H]` (pieces merged) and their mask."""
        text = features.text()
        return text.words, text.word_mask
