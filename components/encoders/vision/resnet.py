"""A 3D residual network: the plain convolutional baseline beside Swin.

Source: He et al. 2016 (arXiv:1512.03385) in 3D; blocks by MONAI. Group normalisation instead of batch
normalisation, so that a volume's features do not depend on what else is in its batch.
"""

from __future__ import annotations

from typing import ClassVar

from monai.networks.nets.resnet import ResNet
from pydantic import Field, model_validator
from torch import Tensor, nn

from components.base.config import Config
from components.encoders.features import VolumeFeatures
from components.encoders.vision import VISION
from components.encoders.vision._pooled import PooledEncoder, PoolingParams


class ResNetParams(PoolingParams):
    """Sizes of the residual network; `blocks` (1, 1, 1, 1) is ResNet-10, (2, 2, 2, 2) ResNet-18."""

    width: int = Field(64, ge=1)
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    norm_groups: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _groups_divide_width(self) -> ResNetParams:
        if self.width % self.norm_groups or min(self.blocks) < 1:
            raise ValueError(f"width {self.width} does not divide by {self.norm_groups} norm_groups")
        return self


@VISION.register("resnet")
class ResNetEncoder(PooledEncoder):
    """Five scales of strides 2, 4, 8, 16 and 32; pooled is made of the coarsest."""

    Params: ClassVar[type[Config]] = ResNetParams

    def __init__(self, params: ResNetParams) -> None:
        super().__init__()
        self.params = params
        widths = [params.width * 2**stage for stage in range(4)]
        self.channels = (params.width, *widths)
        self.embed_dim = widths[-1]
        self.backbone = ResNet(
            block="basic",
            layers=list(params.blocks),
            block_inplanes=widths,
            spatial_dims=3,
            n_input_channels=1,
            conv1_t_stride=2,
            feed_forward=False,
        )
        _use_group_norm(self.backbone, params.norm_groups)
        self.pooling = params.make_pool(self.embed_dim)

    def forward(self, volume: Tensor) -> VolumeFeatures:
        """volume [B, 1, X, Y, Z] -> scales and the pooled vector [B, E]."""
        if volume.ndim != 5 or volume.shape[1] != 1:
            raise ValueError(f"a volume batch is [B, 1, X, Y, Z], not {tuple(volume.shape)}")
        body = self.backbone
        x = body.act(body.bn1(body.conv1(volume)))
        scales = [x]
        x = body.maxpool(x)
        for layer in (body.layer1, body.layer2, body.layer3, body.layer4):
            x = layer(x)
            scales.append(x)
        return VolumeFeatures(tuple(scales), self.pool(tuple(scales)))


def _use_group_norm(module: nn.Module, groups: int) -> None:
    """Put group normalisation in the place of every batch normalisation.

    MONAI 1.6 passes its argument `norm` to the first layer only; the stages stay batch-normalised.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm3d):
            setattr(module, name, nn.GroupNorm(groups, child.num_features))
        else:
            _use_group_norm(child, groups)
