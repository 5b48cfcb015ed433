"""Rebuild the whole view from the deepest scale: masked volume inpainting."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._gather import mean_over_processes, total_count
from components.objectives._reconstruction import deconvolutions, strides_of
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    full_precision,
)
from components.objectives._views import ViewParams, encoded_views, views_of


@OBJECTIVES.register("inpainting")
class Inpainting(Objective):
    """L1 over the whole volume between the rebuilt view and the turned but uncut crop (Swin UNETR's recipe).

    A chain of transposed convolutions without norm or activation, resized only where the crop is no multiple
    of the encoder's stride; any number of rows works. Where an encoder's stride exceeds the crop (a large patch), say
    the crop's size: the head is then made for it and not for the larger global view.
    """

    class Params(ObjectiveParams):
        """How the views are made, and the voxels of the crop that the head is made for (null: the global view's)."""

        views: ViewParams = ViewParams()
        crop: tuple[int, int, int] | None = None

    needs = frozenset({"crop"})

    def __init__(self, params: Params, model: Model) -> None:
        """The head's strides follow from one empty pass of `model.vision` at the size of `crop`."""
        super().__init__()
        self.params = params
        self._vision = (model.vision,)
        self.head = deconvolutions(
            model.vision.channels[-1], strides_of(model.vision, params.crop or tuple(model.contract.size))
        )

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean absolute error over every voxel of the 2B views of all processes."""
        num_views = 2 * total_count(len(batch["crop"]), batch["crop"].device)
        if num_views == 0:
            return {}
        deepest = encoded_views(batch, features, self.params.views, self._vision[0])
        target = views_of(batch, features, self.params.views).targets
        rebuilt = full_precision(self.head(deepest))
        if rebuilt.shape != target.shape:
            rebuilt = F.interpolate(rebuilt, size=target.shape[2:], mode="trilinear", align_corners=False)
        errors = (rebuilt - target).abs().flatten(1).mean(1)
        return {"inpainting": mean_over_processes(errors.sum(), num_views)}
