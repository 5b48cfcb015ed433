"""What a vision and a text encoder must be; a new encoder is one file that registers such a class.

The class holds `Params` (a `Config`); it is made as `cls(params)` for vision and
`cls(params, vocab_size=...)` for text, and registers itself in `VISION` or `TEXT` under its file's name.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from components.base.config import Config

if TYPE_CHECKING:
    from components.encoders.features import TextBatch, TextFeatures, VolumeFeatures
    from components.encoders.tokenization import ReportTokenizer


class VisionEncoder(nn.Module):
    """volume [B, 1, X, Y, Z] -> VolumeFeatures.

    Attributes:
        channels: the channels of each scale, the finest first.
        embed_dim: the length of the pooled vector.
    """

    Params: ClassVar[type[Config]]
    channels: tuple[int, ...]
    embed_dim: int

    @abstractmethod
    def forward(self, volume: Tensor) -> VolumeFeatures:
        """The features of a batch of volumes."""


class TextEncoder(nn.Module):
    """TextBatch -> TextFeatures, with multimodal layers on top.

    Attributes:
        hidden_size: the length of a hidden vector.
        vocab_size: the number of token ids.
        max_positions: the longest sequence.
    """

    Params: ClassVar[type[Config]]
    hidden_size: int
    vocab_size: int
    max_positions: int

    @abstractmethod
    def forward(self, batch: TextBatch) -> TextFeatures:
        """The features of a batch of reports at all levels."""

    @abstractmethod
    def multimodal(self, hidden: Tensor, batch: TextBatch, image_tokens: Tensor) -> Tensor:
        """hidden [B, L, H] with image_tokens [B, N, H] as keys and values -> [B, L, H]."""

    def hidden_states(self, batch: TextBatch) -> Tensor:
        """[B, L, H] of the text layers alone."""
        return self(batch).hidden

    def report(self, batch: TextBatch) -> Tensor:
        """[B, H]: the report vectors alone; a cheaper path than `forward` where there is one."""
        return self(batch).report

    def load_initial_weights(self, folder: Path, tokenizer: ReportTokenizer) -> None:
        """Start from the weights of another model in a local folder."""
        from components.base.errors import ConfigError

        raise ConfigError(
            f"{type(self).__name__} cannot start from other weights",
            rule="encoder.initial_weights",
            fix="set initial_weights to null",
        )
