"""One series on its way into the store: read safely, judged, resampled, written, described.

This runs in worker processes: a `Job` goes in, an `Outcome` comes out, voxels never travel.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.config import fingerprint
from components.base.errors import InputError
from components.volumes.contract import GRID_FIELDS, Contract
from components.volumes.geometry import GeometryRules

if TYPE_CHECKING:
    import numpy.typing as npt

    from components.base.volume_files import Limits, Volume

    Array = npt.NDArray[Any]

STORE_FORMAT = 1
"""Raise it when resampling or the file layout changes: files of another format are made anew."""
MASK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Job:
    """A manifest row, by value, and where things lie; `masks` are (name, path, sha256, labels_json)."""

    study_key: str
    patient_key: str
    series_key: str
    volume_path: str
    volume_sha256: str
    masks: tuple[tuple[str, str, str, str], ...]
    root: Path
    store: Path
    contract: Contract
    rules: GeometryRules
    limits: tuple[float, int, int]


@dataclass(frozen=True)
class Outcome:
    """A row for the index, or the rule and reason of a refusal; `raw_bytes` counts stored voxels."""

    job: Job
    row: dict[str, Any] = field(default_factory=dict)
    rule: str = ""
    reason: str = ""
    reused: bool = False
    raw_bytes: int = 0
    file_bytes: int = 0


def process(job: Job) -> Outcome:
    """Bring one series into the store; a series that cannot be used comes back as a refusal.

    A full disk (`StorageError`) is raised: it is not the series' fault.
    """
    try:
        return _process(job)
    except InputError as error:
        return Outcome(job, rule=error.rule, reason=error.what)


def cache_key(job: Job) -> str:
    """What the stored bytes depend on: the source's bytes, the contract's grid, the rules, the format."""
    return fingerprint(
        {
            "format": STORE_FORMAT,
            "volume": job.volume_sha256,
            "masks": [list(mask) for mask in job.masks],
            "grid": job.contract.part(GRID_FIELDS),
            "rules": job.rules.model_dump(mode="json"),
        }
    )


def _process(job: Job) -> Outcome:
    for name, *_ in job.masks:
        if not MASK_NAME.fullmatch(name):
            raise InputError(
                "a label map's name may hold small letters, digits, - and _ only",
                rule="mask.name",
                fix="rename the label map in the source",
            )
    row = _from_cache(job)
    reused = row is not None
    if row is None:
        row = _make(job)
    files = [job.store / f"{job.series_key}.b2nd"]
    files += [job.store / f"{job.series_key}.{name}.b2nd" for name, *_ in job.masks]
    voxels = row["shape"][0] * row["shape"][1] * row["shape"][2]
    file_bytes = sum(path.stat().st_size for path in files)
    return Outcome(job, row, reused=reused, raw_bytes=voxels * (2 + len(job.masks)), file_bytes=file_bytes)


def _limits(job: Job) -> Limits:
    from components.base.volume_files import Limits

    ratio, voxels, slices = job.limits
    return Limits(max_ratio=ratio, max_voxels=voxels, max_slices=slices)


def _inside(root: Path, relative: str) -> Path:
    """A manifest's path below `root`; one that leads elsewhere is an `InputError`."""
    path = Path(relative)
    if path.is_absolute() or ".." in path.parts or not relative:
        raise InputError(
            "a path of the manifest leads out of the project", rule="volume.path", fix="run ingest again"
        )
    return root / path


def _make(job: Job) -> dict[str, Any]:
    """Read, judge, resample and write a series; returns its row of the index."""
    from components.base.volume_files import read_volume
    from components.volumes.contract import to_store
    from components.volumes.geometry import check
    from components.volumes.resampling import spacing_of
    from components.volumes.store import array_sha256, write_array

    volume = read_volume(_inside(job.root, job.volume_path), _limits(job), sha256=job.volume_sha256)
    notes = check(volume, job.rules)
    hu = to_store(volume.array, volume.affine, job.contract)
    labels = {mask[0]: _label_map(job, volume, mask) for mask in job.masks}
    native = {
        "native_shape": list(volume.array.shape),
        "native_spacing_mm": [round(item, 4) for item in spacing_of(volume.affine)],
        "notes": notes,
    }
    meta = {"key": cache_key(job), "content": array_sha256(hu, job.contract), "native": json.dumps(native)}
    sha256 = write_array(job.store / f"{job.series_key}.b2nd", hu, meta)
    masks_sha256 = {}
    for name, array in labels.items():
        beside = {"key": cache_key(job), "content": array_sha256(array, job.contract)}
        masks_sha256[name] = write_array(job.store / f"{job.series_key}.{name}.b2nd", array, beside)
    return _row(job, hu, meta["content"], sha256, masks_sha256, native)


def _label_map(job: Job, volume: Volume, mask: tuple[str, str, str, str]) -> Array:
    """A label map on the store's grid; one that does not lie on its volume's grid is an `InputError`."""
    import numpy as np

    from components.base.volume_files import read_volume
    from components.volumes.contract import mask_to_store

    name, path, sha256, labels_json = mask
    limits = _limits(job).for_labels(volume.array.size)
    found = read_volume(_inside(job.root, path), limits, sha256=sha256)
    if found.array.shape != volume.array.shape or not np.allclose(found.affine, volume.affine, atol=1e-2):
        raise InputError(
            f"the label map {name} does not lie on its volume's grid",
            rule="mask.grid",
            fix="resample the label map onto the volume, then ingest again",
        )
    low, high = float(found.array.min()), float(found.array.max())
    whole = found.array.dtype.kind in "iu" or bool((found.array == np.rint(found.array)).all())
    if low < 0 or high > 255 or not whole:
        raise InputError(
            f"the label map {name} holds values that are no labels 0 to 255",
            rule="mask.values",
            fix="store one small whole number for every structure",
        )
    known = {int(value) for value in json.loads(labels_json)}
    present = {int(value) for value in np.unique(found.array)} - {0}
    if present - known:
        raise InputError(
            f"the label map {name} holds {len(present - known)} values without a name",
            rule="mask.labels",
            fix="name every value of the label map in the source",
        )
    return mask_to_store(found.array, volume.affine, job.contract)


def _row(
    job: Job, hu: Array, content: str, sha256: str, masks: dict[str, str], native: dict[str, Any]
) -> dict[str, Any]:
    from components.volumes.statistics import describe

    listed = {
        name: {"file_sha256": masks[name], "labels": json.loads(labels)}
        for name, _, _, labels in sorted(job.masks)
    }
    return {
        "study_key": job.study_key,
        "patient_key": job.patient_key,
        "series_key": job.series_key,
        "shape": list(hu.shape),
        "content_sha256": content,
        "file_sha256": sha256,
        "spacing_mm": list(job.contract.spacing_mm),
        **describe(hu),
        "masks_json": json.dumps(listed, sort_keys=True),
        **native,
    }


def _from_cache(job: Job) -> dict[str, Any] | None:
    """The row of a series whose files are here already, made from the same bytes and whole; else None."""
    from components.base.errors import IntegrityError
    from components.base.files import sha256_file
    from components.volumes.store import array_sha256, open_array, read_meta

    source = _inside(job.root, job.volume_path)
    if not source.is_file():
        return None
    key, found, metas = cache_key(job), {}, {}
    for name in ["", *(mask[0] for mask in job.masks)]:
        path = job.store / (f"{job.series_key}.{name}.b2nd" if name else f"{job.series_key}.b2nd")
        meta = read_meta(path) if path.is_file() else None
        if meta is None or meta.get("key") != key:
            return None
        try:
            array = open_array(path)[:]
        except (IntegrityError, RuntimeError, ValueError):
            return None
        if array_sha256(array, job.contract) != meta.get("content"):
            return None
        found[name], metas[name] = (array, sha256_file(path)), meta
    hu, sha256 = found.pop("")
    masks = {name: digest for name, (_, digest) in found.items()}
    return _row(job, hu, metas[""]["content"], sha256, masks, json.loads(metas[""]["native"]))
