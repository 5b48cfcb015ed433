"""At which resolution volumes are read for an encoder, and how their dense features are made and kept.

`training` is the store of `preprocess` on the encoder's own contract. `evaluation` is the finer store that
`preprocess.evaluation` asks for, read in windows of the encoder's own size whose grids are put side by side and pooled
as one (COLIPRI's evaluation: 384^3 voxels of 1 mm in eight windows of 192^3 for an encoder of 192^3 at 2 mm).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from components.base.errors import ConfigError, InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from components.downstream.inputs import DownstreamInputs
    from components.volumes.contract import Contract

    Tokens = npt.NDArray[np.float16]

Resolution: TypeAlias = Literal["training", "evaluation"]
Accelerator: TypeAlias = Literal["cpu", "gpu", "auto"]
DENSE_VERSION = 1  # part of the cache's name: raise it when what is computed changes
FREE_FIELDS = frozenset({"spacing_mm", "size"})
"""In these an evaluation's contract may differ from the encoder's."""


@dataclass(frozen=True)
class Reading:
    """A store, the contract by which its volumes become tensors, and the window (voxels) or None for one pass."""

    resolution: Resolution
    store: Any
    index: Mapping[str, Mapping[str, Any]]
    contract: Contract
    window: tuple[int, int, int] | None

    def volume(self, series: str) -> Any:
        """A series as the encoder reads it: float32 [1, *contract.size]."""
        from components.volumes.views import global_view

        return global_view(self.store, series, self.contract)

    def content(self, series: str) -> str:
        """The SHA-256 of a stored series, its grid included."""
        if series not in self.index:
            raise InputError(
                f"the store for {self.resolution} has no such series",
                key=series,
                rule="store.unknown",
                fix="see quarantine.parquet of preprocess; run preprocess again",
            )
        return str(self.index[series]["content_sha256"])


def open_reading(inputs: DownstreamInputs, resolution: Resolution) -> Reading:
    """The volumes at a resolution; `ContractError` with the difference where they do not suit the encoder.

    Training resolution asks for the encoder's contract in all that makes a tensor, evaluation resolution in all but
    spacing and size, and for whole windows (`ConfigError`).
    """
    from components.volumes.contract import PREPROCESSING_FIELDS, require_same
    from components.volumes.store import VolumeStore

    own = inputs.contract()
    if resolution == "training":
        store = inputs.store()
        require_same(own, store.contract)
        return Reading(resolution, store, inputs.index(), own, None)
    folder = inputs.artifact("preprocess_evaluation")
    if not (folder / "index.parquet").is_file():
        raise InputError(
            "there is no store at an evaluation resolution",
            rule="evaluation.resolution",
            fix="set preprocess.evaluation (spacing_mm, size) and run preprocess, or use resolution: training",
        )
    store = VolumeStore(folder)
    require_same(own, store.contract, tuple(name for name in PREPROCESSING_FIELDS if name not in FREE_FIELDS))
    if any(side % width for side, width in zip(store.contract.size, own.size, strict=True)):
        raise ConfigError(
            f"windows of {_times(own.size)} voxels do not fill a volume of {_times(store.contract.size)}",
            rule="evaluation.window",
            fix="make preprocess.evaluation.size a multiple of the encoder's size",
        )
    index = {row["series_key"]: row for row in inputs.rows("preprocess_evaluation", "index.parquet")}
    return Reading(resolution, store, index, store.contract, own.size)


def encoder_files(inputs: DownstreamInputs) -> dict[str, str]:
    """The SHA-256 of every file of the encoder's folder that what it computes depends on."""
    from components.base.files import sha256_file

    folder = inputs.encoder_folder()
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in {".safetensors", ".json"}
    }


class DenseFeatures:
    """Frozen features at every position: float16 [N, C] a study, N positions of one of the encoder's scales.

    Each study is encoded once, by itself, and kept in `.velvet/cache/dense/HASH/CONTENT.npy` (HASH: encoder and how
    it reads; CONTENT: the volume's), so that any number of probes, and a run that was cut off, find it there.
    Reading maps the file into memory. A damaged file is computed again.
    """

    def __init__(self, inputs: DownstreamInputs, scale: int, resolution: Resolution) -> None:
        """`scale` counts the encoder's scales from the finest; negative numbers from the coarsest."""
        self.inputs, self.scale = inputs, scale
        self.reading = open_reading(inputs, resolution)
        parts = [
            DENSE_VERSION,
            encoder_files(inputs),
            scale,
            self.reading.contract.part(),
            self.reading.window,
        ]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        self.folder = inputs.root / ".velvet" / "cache" / "dense" / digest

    def _path(self, study: str) -> Path:
        series = self.inputs.split()[study].series_key
        return self.folder / f"{self.reading.content(series)}.npy"

    def prepare(
        self,
        studies: Sequence[str],
        accelerator: Accelerator = "cpu",
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> int:
        """Encode the studies that the cache lacks; returns how many that were."""
        missing = [study for study in studies if _read(self._path(study)) is None]
        if not missing:
            return 0
        device, encoder = device_of(accelerator), self.inputs.encoder()
        home = encoder.device
        encoder.to(device)
        try:
            for done, study in enumerate(missing, 1):
                _write(self._path(study), self._encode(encoder, study, device))
                progress(done, len(missing))
        finally:
            encoder.to(home)
        return len(missing)

    def read(self, study: str) -> Tokens:
        """A prepared study's features [N, C], mapped from its file."""
        found = _read(self._path(study))
        if found is None:
            self.prepare([study])
            found = _read(self._path(study))
        assert found is not None
        return found

    def _encode(self, encoder: Any, study: str, device: Any) -> Tokens:
        """One volume at a time, so that its bytes do not depend on what else the cache lacked."""
        import numpy as np
        import torch

        from components.encoders.dense import features_of

        series = self.inputs.split()[study].series_key
        volume = torch.from_numpy(self.reading.volume(series))[None].to(device)
        with torch.inference_mode():
            scales = features_of(encoder.vision, volume, self.reading.window).scales
            if not -len(scales) <= self.scale < len(scales):
                raise ConfigError(
                    f"the encoder has {len(scales)} scales, there is no scale {self.scale}",
                    rule="dense.scale",
                    fix="use 0 (the finest) or -1 (the coarsest)",
                )
            tokens = scales[self.scale][0].flatten(1).T.float().cpu().numpy().astype(np.float16)
        if not np.isfinite(tokens).all():
            raise InputError(
                "the encoder gives features that are not finite in half precision",
                rule="dense.finite",
                fix="look at the curves of pretrain, or choose another scale",
            )
        return np.ascontiguousarray(tokens)


def device_of(accelerator: Accelerator) -> Any:
    """The torch device of an accelerator; `gpu` without one is a `ConfigError`."""
    import torch

    there = torch.cuda.is_available()
    if accelerator == "gpu" and not there:
        raise ConfigError(
            "there is no GPU that this PyTorch can use", rule="accelerator.gpu", fix="set accelerator to cpu"
        )
    return torch.device("cuda" if there and accelerator != "cpu" else "cpu")


def _read(path: Path) -> Tokens | None:
    """The mapped array, or None if there is none or it is damaged."""
    import numpy as np

    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 2 and found.dtype == np.float16 else None


def _write(path: Path, array: Tokens) -> None:
    import numpy as np

    from components.base.files import write_bytes

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def _times(size: Sequence[int]) -> str:
    return "x".join(str(side) for side in size)
