"""The chunked, compressed store of preprocessed volumes: one `.b2nd` file a series, read whole or in boxes.

A file is a contiguous Blosc2 frame (zstd, bit shuffle) whose bytes depend on its voxels alone. The index holds
each file's SHA-256, which a reader checks when it first touches the file: damaged files are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import InputError, IntegrityError
from components.volumes.contract import AIR_HU, GRID_FIELDS, Contract

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]

CHUNK, BLOCK = 64, 32
"""Side of a chunk and of a block in voxels: what is decompressed at least is one block (64 KiB of int16)."""
META = "velvet"


def array_sha256(array: Array, contract: Contract) -> str:
    """SHA-256 over voxels, shape, type and the contract's grid: another grid never passes for this one."""
    import hashlib

    import numpy as np

    digest = hashlib.sha256()
    digest.update(contract.fingerprint(GRID_FIELDS).encode())
    digest.update(f"{array.dtype.str}{list(array.shape)}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_array(path: Path, array: Array, meta: dict[str, str]) -> str:
    """Write [X, Y, Z] atomically with `meta` beside it; returns the file's SHA-256.

    Chunks and blocks are fixed here: Blosc2 would choose them by the CPU's cache, and bytes would differ.
    """
    import blosc2
    import numpy as np

    from components.base.files import atomic_path, sha256_file

    chunks = tuple(min(CHUNK, max(1, size)) for size in array.shape)
    blocks = tuple(min(BLOCK, size) for size in chunks)
    packed = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": 5,
        "nthreads": 1,
        "filters": [blosc2.Filter.BITSHUFFLE],
        "filters_meta": [0],
        "typesize": array.dtype.itemsize,
    }
    with atomic_path(path) as temp:
        temp.unlink(missing_ok=True)
        handle = blosc2.asarray(
            np.ascontiguousarray(array),
            urlpath=str(temp),
            mode="w",
            contiguous=True,
            chunks=chunks,
            blocks=blocks,
            cparams=packed,
            meta={META: dict(sorted(meta.items()))},
        )
        del handle
    return sha256_file(path)


def open_array(path: Path) -> Any:
    """Open a `.b2nd` memory-mapped for reading; a damaged one is an `IntegrityError`."""
    import blosc2

    try:
        return blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
    except FileNotFoundError:
        raise _damaged("is missing", path.stem) from None
    except Exception:  # Blosc2 raises RuntimeError, ValueError, TypeError by where the damage lies
        raise _damaged("cannot be opened", path.stem) from None


def read_meta(path: Path) -> dict[str, str] | None:
    """What `write_array` put beside the voxels, or None if the file is not one of ours."""
    try:
        opened = open_array(path)  # kept: its metadata do not outlive it
        found = opened.schunk.meta
        return dict(found[META]) if META in found else None
    except (IntegrityError, RuntimeError, ValueError, TypeError, KeyError):
        return None


def _damaged(what: str, key: str) -> IntegrityError:
    return IntegrityError(
        f"a file of the store {what}", key=key, rule="store.damaged", fix="run preprocess again"
    )


class VolumeStore:
    """Read access to `artifacts/preprocess`: volumes int16 HU and label maps uint8, both [X, Y, Z] in RAS+.

    It opens files when they are asked for, may be sent to worker processes, and is safe to read from threads.
    """

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        """`folder` holds index.parquet, contract.json and store/; `verify` checks a file's hash once."""
        from components.base.files import read_table

        self.folder, self.verify = Path(folder), verify
        self.contract = Contract.load(self.folder / "contract.json")
        rows = read_table(self.folder / "index.parquet").to_pylist()
        self._rows: dict[str, dict[str, Any]] = {row["series_key"]: row for row in rows}
        self._open: dict[Path, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def __len__(self) -> int:
        return len(self._rows)

    def keys(self) -> list[str]:
        """The series keys, in the index's order."""
        return list(self._rows)

    def row(self, series: str) -> dict[str, Any]:
        """The index's row of a series; an unknown one is an `InputError`."""
        if series not in self._rows:
            raise InputError(
                "the store has no such series", key=series, rule="store.unknown", fix="see index.parquet"
            )
        return self._rows[series]

    def shape(self, series: str) -> tuple[int, int, int]:
        """Voxels along [X, Y, Z]."""
        first, second, third = self.row(series)["shape"]
        return (int(first), int(second), int(third))

    def masks(self, series: str) -> dict[str, dict[int, str]]:
        """The label maps of a series: their names, and label names by value."""
        listed = json.loads(self.row(series)["masks_json"])
        return {
            name: {int(value): label for value, label in entry["labels"].items()}
            for name, entry in listed.items()
        }

    def _array(self, series: str, path: Path, sha256: str, dtype: str) -> Any:
        opened = self._open.get(path)
        if opened is None:
            from components.base.files import sha256_file

            if self.verify and (not path.is_file() or sha256_file(path) != sha256):
                raise _damaged("does not have the bytes of the index", series)
            opened = open_array(path)
            if tuple(opened.shape) != self.shape(series) or opened.dtype.str.lstrip("<|") != dtype:
                raise _damaged("does not have the shape of the index", series)
            self._open[path] = opened
        return opened

    def _volume(self, series: str) -> Any:
        path = self.folder / "store" / f"{series}.b2nd"
        return self._array(series, path, self.row(series)["file_sha256"], "i2")

    def _mask(self, series: str, name: str) -> Any:
        listed = json.loads(self.row(series)["masks_json"])
        if name not in listed:
            raise InputError(
                f"the series has no label map called {name!r}",
                key=series,
                rule="store.mask",
                fix=f"it has: {', '.join(sorted(listed)) or 'none'}",
            )
        path = self.folder / "store" / f"{series}.{name}.b2nd"
        return self._array(series, path, listed[name]["file_sha256"], "u1")

    def read(self, series: str) -> npt.NDArray[np.int16]:
        """The whole volume, int16 HU [X, Y, Z]."""
        return _slice(self._volume(series), (slice(None),) * 3, series)

    def read_box(
        self, series: str, start: tuple[int, int, int], size: tuple[int, int, int]
    ) -> npt.NDArray[np.int16]:
        """A box of the volume, int16 HU [*size]; only its blocks are decompressed, air lies outside."""
        return self._box(self._volume(series), series, start, size, AIR_HU)

    def read_mask(self, series: str, name: str) -> npt.NDArray[np.uint8]:
        """A whole label map, uint8 [X, Y, Z]."""
        return _slice(self._mask(series, name), (slice(None),) * 3, series)

    def read_mask_box(
        self, series: str, name: str, start: tuple[int, int, int], size: tuple[int, int, int]
    ) -> npt.NDArray[np.uint8]:
        """A box of a label map, uint8 [*size]; 0 outside."""
        return self._box(self._mask(series, name), series, start, size, 0)

    def _box(
        self, opened: Any, series: str, start: tuple[int, int, int], size: tuple[int, int, int], fill: int
    ) -> Array:
        import numpy as np

        shape = self.shape(series)
        lows = [max(0, first) for first in start]
        highs = [min(have, first + count) for have, first, count in zip(shape, start, size)]
        inside = all(low < high for low, high in zip(lows, highs))
        if inside and lows == list(start) and highs == [a + b for a, b in zip(start, size)]:
            return _slice(opened, tuple(map(slice, lows, highs)), series)
        box = np.full(size, fill, dtype=opened.dtype)
        if inside:
            where = tuple(slice(low - first, high - first) for low, high, first in zip(lows, highs, start))
            box[where] = _slice(opened, tuple(map(slice, lows, highs)), series)
        return box


def _slice(opened: Any, where: tuple[slice, ...], series: str) -> Array:
    try:
        return opened[where]
    except (RuntimeError, ValueError):
        raise _damaged("cannot be decompressed", series) from None
