"""What convolutional and hierarchical encoders share: a pool over their coarsest scale."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from components.base.config import Config
from components.encoders.interfaces import VisionEncoder
from components.encoders.pooling import Pool, PoolingKind, make_pool


class PoolingParams(Config):
    """How the coarsest scale becomes one vector; `pool_heads` counts where there is attention."""

    pooling: PoolingKind = "average"
    pool_heads: int = Field(4, ge=1)

    def make_pool(self, width: int) -> Pool:
        """The pool for `width` channels."""
        return make_pool(self.pooling, width, self.pool_heads)


class PooledEncoder(VisionEncoder):
    """A vision encoder with `pooling` over the coarsest scale."""

    pooling: Pool

    def pool(self, scales: tuple[Tensor, ...]) -> Tensor:
        """Scales -> [B, E]."""
        return self.pooling.of_grid(scales[-1])

    def dense(self, scales: tuple[Tensor, ...]) -> Tensor:
        """Scales -> [B, E, *S] on the coarsest grid."""
        return self.pooling.to_dense(scales[-1])
