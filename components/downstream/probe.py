"""A linear probe: standardisation, a weight row a label, a threshold on its log-odds; safetensors and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import IntegrityError
from components.downstream.reading import Resolution

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

TENSORS = "probe.safetensors"
SETTINGS = "probe.json"


@dataclass(frozen=True)
class Probe:
    """`mean`, `scale` [E]; `weight` [L, E]; `bias` [L]; labels and thresholds [L] (None: validation gave none)."""

    labels: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    features: str
    label_source: str
    strength: float
    mean: Array
    scale: Array
    weight: Array
    bias: Array
    resolution: Resolution = "training"

    def logits(self, features: Any) -> Array:
        """The log-odds [N, L] of each label being present, of features [N, E]; a threshold is on these."""
        import numpy as np

        values: Array = (np.asarray(features, dtype=np.float64) - self.mean) / self.scale
        return values @ self.weight.T + self.bias

    def save(self, folder: Path) -> None:
        """Write `probe.safetensors` and `probe.json` into `folder`."""
        import numpy as np
        from safetensors.numpy import save

        from components.base.files import write_bytes, write_json

        names = ("mean", "scale", "weight", "bias")
        tensors = {name: np.ascontiguousarray(getattr(self, name), dtype=np.float64) for name in names}
        write_bytes(folder / TENSORS, save(tensors))
        write_json(
            folder / SETTINGS,
            {
                "labels": self.labels,
                "thresholds": self.thresholds,
                "features": self.features,
                "resolution": self.resolution,
                "label_source": self.label_source,
                "inverse_regularisation": self.strength,
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Probe:
        """Read what `save` wrote; a missing or damaged file is an `InputError` or `IntegrityError`."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        from components.base.files import missing_input, read_json

        settings = read_json(folder / SETTINGS)
        if not (folder / TENSORS).exists():
            raise missing_input(folder / TENSORS)
        try:
            tensors = load_file(folder / TENSORS)
            probe = cls(
                labels=tuple(settings["labels"]),
                thresholds=tuple(settings["thresholds"]),
                features=settings["features"],
                label_source=settings["label_source"],
                strength=settings["inverse_regularisation"],
                resolution=settings["resolution"],
                **{name: tensors[name] for name in ("mean", "scale", "weight", "bias")},
            )
            if probe.weight.shape != (len(probe.labels), len(probe.mean)):
                raise ValueError
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise IntegrityError(
                "the linear probe's files do not fit together",
                rule="probe.format",
                fix="run finetune --task classification again",
            ) from None
        return probe
