"""What a vision and a text encoder must be; a new encoder is one file that registers such a class.

The class holds `Params` (a `Config`); it is made as `cls(params)` for vision and
`cls(params, vocab_size=...)` for text, and registers itself in `VISION` or `TEXT` under its file's name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from components.base.config import Config
from components.base.errors import ConfigError

if TYPE_CHECKING:
    from components.encoders.features import TextBatch, TextFeatures, VolumeFeatures
    from components.encoders.tokenization import ReportTokenizer


class VisionEncoder(nn.Module):
    """volume [B, 1, X, Y, Z] -> VolumeFeatures.

    `forward` is `pool` of its scales, so that scales put together from windows can be pooled like others.

    Attributes:
        channels: the channels of each scale, the finest first.
        embed_dim: the length of the pooled vector.
        joint: whether pooled vectors are made for the shared space, so that no projection follows.
    """

    Params: ClassVar[type[Config]]
    channels: tuple[int, ...]
    embed_dim: int
    joint: bool = False

    @abstractmethod
    def forward(self, volume: Tensor) -> VolumeFeatures:
        """The features of a batch of volumes."""

    def pool(self, scales: tuple[Tensor, ...]) -> Tensor:
        """Scales as `forward` gives them -> [B, E]: the mean of the coarsest."""
        return self._coarsest(scales).mean(dim=(2, 3, 4))

    def dense(self, scales: tuple[Tensor, ...]) -> Tensor:
        """Scales -> [B, E, *S]: where `pool` would put each position by itself."""
        return self._coarsest(scales)

    def _coarsest(self, scales: tuple[Tensor, ...]) -> Tensor:
        """The coarsest scale, if a mean of it can be the pooled vector; else `ConfigError`."""
        if scales[-1].shape[1] != self.embed_dim:
            raise ConfigError(
                "this vision encoder's vector is not made of its scales: it has no maps and reads no windows",
                rule="vision.dense",
                fix="use another vision encoder, or give it `pool` and `dense`",
            )
        return scales[-1]


class PatchEncoder(VisionEncoder):
    """A vision transformer from which patches can be left out: what a masked autoencoder needs.

    Patches are counted in C order of [X, Y, Z]: number = (x * Y + y) * Z + z.

    Attributes:
        patch: voxels along the side of a patch.
        width: channels of a token.
        heads: attention heads.
    """

    patch: int
    width: int
    heads: int

    def grid(self, size: Sequence[int]) -> tuple[int, ...]:
        """Patches along each axis of a volume of `size` voxels; `ConfigError` where they do not fit."""
        if any(side < self.patch or side % self.patch for side in size):
            raise ConfigError(
                f"patches of {self.patch} voxels do not fill a volume of {'x'.join(map(str, size))}",
                rule="vision.patch",
                fix="make every side of the input a multiple of the patch",
            )
        return tuple(side // self.patch for side in size)

    @abstractmethod
    def visible(self, volume: Tensor, keep: Tensor) -> Tensor:
        """volume [B, 1, X, Y, Z], keep int64 [B, K] patch numbers -> [B, K, C] from these patches alone."""


class TextEncoder(nn.Module):
    """TextBatch -> TextFeatures, with multimodal layers on top.

    Attributes:
        hidden_size: the length of a hidden vector.
        vocab_size: the number of token ids.
        max_positions: the longest sequence.
        joint: whether report vectors are made for the shared space, so that no projection follows.
    """

    Params: ClassVar[type[Config]]
    hidden_size: int
    vocab_size: int
    max_positions: int
    joint: bool = False

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

    def bind(self, tokenizer: ReportTokenizer) -> None:
        """Take from the tokenizer what the encoder must know of it; called once, before any weights are loaded."""

    def load_initial_weights(self, folder: Path, tokenizer: ReportTokenizer) -> None:
        """Start from the weights of another model in a local folder."""
        raise ConfigError(
            f"{type(self).__name__} cannot start from other weights",
            rule="encoder.initial_weights",
            fix="set initial_weights to null",
        )
