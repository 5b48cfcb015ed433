"""Writing series in several processes: the outcome of each, in order, whatever the number of workers."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.base.errors import InputError
from components.cohort.study import RawSeries


@dataclass(frozen=True)
class Job:
    """One series to write below `folder`/volumes and `folder`/masks under its key."""

    raw: RawSeries
    key: str
    folder: Path


@dataclass(frozen=True)
class WrittenMask:
    """A mask that was written: its name, label names and the SHA-256 of its file."""

    name: str
    labels: Mapping[int, str]
    sha256: str


@dataclass(frozen=True)
class Written:
    """A series that was written: hashes and size of its files."""

    sha256: str
    masks: tuple[WrittenMask, ...]
    num_bytes: int


@dataclass(frozen=True)
class Failed:
    """A series that cannot be used, with the rule and a reason without PHI."""

    rule: str
    reason: str


def write_series(job: Job) -> Written | Failed:
    """Write one series; what is wrong with its data comes back as `Failed`, a full disk is raised."""
    try:
        return _write(job)
    except InputError as error:
        outcome = Failed(error.rule, error.what)
    except (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]  # the text of a parser's error may hold PHI
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        outcome = Failed("series.unexpected", f"reading the series met a {type(error).__name__} at {where}")
    remove_files(job.folder, job.key)
    return outcome


def _write(job: Job) -> Written:
    from components.base.files import sha256_file
    from components.cohort._writing import MASK_NAME

    volume, masks = job.folder / "volumes" / f"{job.key}.nii.gz", job.folder / "masks"
    found = job.raw.write(volume, masks, job.key)
    for mask in found:
        if not MASK_NAME.fullmatch(mask.name) or mask.path != masks / f"{job.key}.{mask.name}.nii.gz":
            raise InputError("a mask has an odd name", rule="mask.name", fix="name it with a-z, 0-9 and _")
    for path in (volume, *(mask.path for mask in found)):
        path.chmod(0o600)
    size = sum(path.stat().st_size for path in (volume, *(mask.path for mask in found)))
    hashed = (WrittenMask(mask.name, dict(mask.labels), sha256_file(mask.path)) for mask in found)
    return Written(sha256_file(volume), tuple(sorted(hashed, key=lambda mask: mask.name)), size)


def remove_files(folder: Path, key: str) -> None:
    """Remove a series' volume and masks, if they are there."""
    (folder / "volumes" / f"{key}.nii.gz").unlink(missing_ok=True)
    for mask in (folder / "masks").glob(f"{key}.*"):
        mask.unlink(missing_ok=True)


def run_jobs(jobs: Sequence[Job], workers: int) -> Iterator[Written | Failed]:
    """The outcomes of all jobs in order; one worker means this process."""
    if workers == 1 or len(jobs) < 2:
        yield from map(write_series, jobs)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")  # a forked child would inherit held locks
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        try:
            yield from pool.map(write_series, jobs)
        except BrokenProcessPool:
            raise InputError(
                "a process that was writing a series died, probably for want of memory",
                rule="ingest.worker",
                fix="set ingest.workers lower",
            ) from None
