"""Swin Transformer over 3D patches: the encoder of Swin-UNETR, as VELVET-Med uses it.

Source: Liu et al. 2021 (arXiv:2103.14030), Hatamizadeh et al. 2022 (arXiv:2201.01266); layers by MONAI.
The defaults are VELVET-Med's: 22.85 M parameters, 48@48^3 ... 768@3^3 from 96^3.
"""

from __future__ import annotations

from typing import ClassVar

from monai.networks.nets.swin_unetr import SwinTransformer
from pydantic import Field, model_validator
from torch import Tensor

from components.base.config import Config
from components.encoders.features import VolumeFeatures
from components.encoders.vision import VISION
from components.encoders.vision._pooled import PooledEncoder, PoolingParams
from components.encoders.vision._stage import Stage

NUM_STAGES = 4


class SwinParams(PoolingParams):
    """Sizes of the Swin encoder."""

    patch: int = Field(2, ge=1)
    window: int = Field(7, ge=1)
    embed_dim: int = Field(48, ge=1)
    depths: tuple[int, int, int, int] = (2, 8, 8, 8)
    heads: tuple[int, int, int, int] = (4, 8, 16, 32)
    mlp_ratio: float = Field(4.0, gt=0)
    drop_path: float = Field(0.0, ge=0, lt=1)
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _heads_divide_channels(self) -> SwinParams:
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            channels = self.embed_dim * 2**stage
            if depth < 1 or heads < 1 or channels % heads:
                raise ValueError(f"stage {stage + 1}: {channels} channels do not divide by {heads} heads")
        return self


@VISION.register("swin")
class SwinEncoder(PooledEncoder):
    """Five scales: strides patch * (1, 2, 4, 8, 16); pooled is made of the coarsest."""

    Params: ClassVar[type[Config]] = SwinParams

    def __init__(self, params: SwinParams) -> None:
        super().__init__()
        self.params = params
        self.channels = tuple(params.embed_dim * 2**scale for scale in range(NUM_STAGES + 1))
        self.embed_dim = self.channels[-1]
        self.backbone = SwinTransformer(
            in_chans=1,
            embed_dim=params.embed_dim,
            window_size=(params.window,) * 3,
            patch_size=(params.patch,) * 3,
            depths=params.depths,
            num_heads=params.heads,
            mlp_ratio=params.mlp_ratio,
            qkv_bias=True,
            drop_path_rate=params.drop_path,
            patch_norm=False,
            use_checkpoint=params.gradient_checkpointing,
            spatial_dims=3,
            downsample="merging",
        )
        for number in range(1, NUM_STAGES + 1):
            layers = getattr(self.backbone, f"layers{number}")
            layers[0] = Stage(layers[0])
        self.pooling = params.make_pool(self.embed_dim)

    def train(self, mode: bool = True) -> SwinEncoder:
        """Set the mode; activations are recomputed in training only (export cannot trace it)."""
        super().train(mode)
        for module in self.backbone.modules():
            if hasattr(module, "use_checkpoint"):
                setattr(module, "use_checkpoint", mode and self.params.gradient_checkpointing)  # noqa: B010
        return self

    def forward(self, volume: Tensor) -> VolumeFeatures:
        """volume [B, 1, X, Y, Z] -> layer-normed (no affine) scales and their pooled vector [B, E]."""
        if volume.ndim != 5 or volume.shape[1] != 1:
            raise ValueError(f"a volume batch is [B, 1, X, Y, Z], not {tuple(volume.shape)}")
        scales = tuple(self.backbone(volume, normalize=True))
        return VolumeFeatures(scales, self.pool(scales))
