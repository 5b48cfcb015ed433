"""How many quarter turns a view was given: a 4-way classification."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._gather import mean_over_processes, total_count
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    full_precision,
)
from components.objectives._views import ViewParams, encoded_views, views_of


@OBJECTIVES.register("rotation")
class Rotation(Objective):
    """Cross-entropy of a linear head on the pooled deepest scale, over both views (Swin UNETR's recipe).

    Any number of rows works, one included.
    """

    class Params(ObjectiveParams):
        """How the views are made."""

        views: ViewParams = ViewParams()

    needs = frozenset({"crop"})

    def __init__(self, params: Params, model: Model) -> None:
        """`model.vision.channels[-1]` is the width of the deepest scale."""
        super().__init__()
        self.params = params
        self._vision = (model.vision,)
        self.head = nn.Linear(model.vision.channels[-1], 4)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean cross-entropy over the 2B views of all processes; ln 4 for a head that knows nothing."""
        num_views = 2 * total_count(len(batch["crop"]), batch["crop"].device)
        if num_views == 0:
            return {}
        deepest = encoded_views(batch, features, self.params.views, self._vision[0])
        logits = full_precision(self.head(deepest.flatten(2).mean(-1)))
        turns = views_of(batch, features, self.params.views).turns
        total = F.cross_entropy(logits, turns, reduction="sum")
        return {"rotation": mean_over_processes(total, num_views)}
