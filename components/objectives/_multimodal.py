"""What the multimodal layers read of an image: the coarsest scale's tokens through a linear map and a norm."""

from __future__ import annotations

from torch import Tensor, nn

from components.objectives._shared import FeaturesLike, Model, scale_at


class ImageAdapter(nn.Module):
    """Linear and LayerNorm from the width of the coarsest scale to the text encoder's (VELVET-Med's adapter)."""

    def __init__(self, model: Model) -> None:
        """`model.vision.channels[-1]` and `model.text.hidden_size` give the widths."""
        super().__init__()
        width = model.text.hidden_size
        self.linear, self.norm = nn.Linear(model.vision.channels[-1], width), nn.LayerNorm(width)

    def forward(self, features: FeaturesLike) -> Tensor:
        """Image tokens `[n, N, H]` of the paired rows: keys and values of the cross-attention."""
        return self.norm(self.linear(scale_at(features.paired_volume(), -1)))
