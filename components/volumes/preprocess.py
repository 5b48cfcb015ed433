"""Bring every volume onto the contract's grid and into the chunked store.

    python -m components.volumes.preprocess

Reads artifacts/deidentify/manifest.parquet and the files it names below restricted/ingest; writes the store,
index.parquet, contract.json and quarantine.parquet to artifacts/preprocess. Only voxels, labels and keyed ids
reach the store: a header's text is never read. Files that are there already and were made from the same bytes
under the same contract are kept, so that a run that was killed goes on where it stopped.

With `preprocess.evaluation` a second, finer store of the same series is written to artifacts/preprocess_evaluation, for
tasks and protocols that read at that resolution; without it that folder is empty.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from components.base.config import Config
from components.base.errors import InputError
from components.base.step import Step, StepContext
from components.volumes.contract import Contract
from components.volumes.geometry import GeometryRules

if TYPE_CHECKING:
    import pyarrow as pa

    from components.cohort.quarantine import Quarantine
    from components.volumes.process import Job, Outcome


class ReadLimits(Config):
    """What a file may announce (see `components.base.volume_files.Limits`)."""

    max_ratio: float = 200.0
    max_voxels: int = 1_000_000_000
    max_slices: int = 4096


class EvaluationGrid(Config):
    """The resolution of a second store for evaluation: COLIPRI's is 1 mm and 384^3 beside 2 mm and 192^3."""

    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]


class Params(Config):
    """The contract of the run, the rules, and how many processes work (0: one for every core)."""

    contract: Contract
    evaluation: EvaluationGrid | None = None
    rules: GeometryRules = GeometryRules()
    limits: ReadLimits = ReadLimits()
    workers: int = Field(default=0, ge=0, le=256)
    max_quarantined_fraction: float = Field(default=0.1, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _whole_windows(self) -> Params:
        """The finer volume is read in windows of the contract's size."""
        finer = self.evaluation_contract()
        if finer is not None:
            if self.contract.view != "crop_or_pad":
                raise ValueError("evaluation needs the view crop_or_pad: a squeezed volume has no spacing")
            if any(side % width for side, width in zip(finer.size, self.contract.size, strict=True)):
                raise ValueError("every side of evaluation.size must be a multiple of contract.size")
        return self

    def evaluation_contract(self) -> Contract | None:
        """The contract of the store for evaluation: the run's own but for spacing and size."""
        if self.evaluation is None:
            return None
        return Contract.model_validate({**self.contract.model_dump(), **self.evaluation.model_dump()})


def index_schema() -> pa.Schema:
    """The columns of index.parquet; shapes and boxes are [X, Y, Z]."""
    import pyarrow as pa

    text, ints, reals = pa.string(), pa.list_(pa.int32()), pa.list_(pa.float64())
    fields = [(name, text) for name in ("study_key", "patient_key", "series_key")]
    fields += [("shape", ints), ("content_sha256", text), ("file_sha256", text), ("spacing_mm", reals)]
    fields += [("hu_min", pa.int32()), ("hu_max", pa.int32())]
    fields += [(name, pa.float64()) for name in ("hu_mean", "air_fraction", "soft_fraction")]
    fields += [("body_start", ints), ("body_stop", ints), ("average_hash", text), ("masks_json", text)]
    fields += [("native_shape", ints), ("native_spacing_mm", reals), ("notes", pa.list_(text))]
    return pa.schema(fields)


def run(params: Params, context: StepContext) -> Mapping[str, Any]:
    """Fill the store, and the one for evaluation if there is to be one; returns counts and bytes."""
    from components.cohort.manifest import read_rows
    from components.cohort.quarantine import Quarantine

    manifest = context.artifacts("deidentify") / "manifest.parquet"
    rows = sorted(read_rows(manifest, "deidentified_manifest"), key=lambda row: row["series_key"])
    quarantine = Quarantine("preprocess", context.log)
    done = _fill(context.out, params.contract, rows, params, quarantine, context)
    quarantine.close(
        context.out / "quarantine.parquet", total=len(rows), limit=params.max_quarantined_fraction
    )
    _finish(context.out, params.contract, done)
    reused = sum(outcome.reused for outcome in done)
    context.log.info("%d volumes in the store, %d of them were there already", len(done), reused)
    metrics = _metrics(done, quarantine)
    folder, finer = context.artifacts("preprocess_evaluation"), params.evaluation_contract()
    if finer is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return metrics
    kept = {outcome.job.series_key for outcome in done}
    chosen = [{**row, "masks": None} for row in rows if row["series_key"] in kept]
    again = Quarantine("preprocess", context.log)
    found = _fill(folder, finer, chosen, params, again, context)
    again.close(folder / "quarantine.parquet", total=len(rows), limit=params.max_quarantined_fraction)
    _finish(folder, finer, found)
    return {
        **metrics,
        "evaluation_volumes": len(found),
        "evaluation_store_bytes": sum(item.file_bytes for item in found),
    }


def _fill(
    folder: Path,
    contract: Contract,
    rows: Sequence[Mapping[str, Any]],
    params: Params,
    quarantine: Quarantine,
    context: StepContext,
) -> list[Outcome]:
    """Write every series' voxels below `folder`/store; what cannot be used goes to quarantine."""
    from components.base.files import clean_orphans

    store = folder / "store"
    store.mkdir(parents=True, exist_ok=True)
    clean_orphans(store)
    clean_orphans(folder)
    jobs = [_job(row, params, contract, context.root, store) for row in rows]
    done: list[Outcome] = []
    for count, outcome in enumerate(_outcomes(jobs, _workers(params.workers, len(jobs))), 1):
        if outcome.rule:
            quarantine.add(outcome.job.study_key, outcome.job.series_key, outcome.rule, outcome.reason)
        else:
            done.append(outcome)
            for note in outcome.row["notes"]:
                context.log.debug("%s %s", outcome.job.series_key, note)
        context.progress(count, len(jobs), unit="volumes")
    return sorted(done, key=lambda outcome: outcome.job.series_key)


def _finish(folder: Path, contract: Contract, done: list[Outcome]) -> None:
    """Write the contract and the index of a store whose files are there."""
    import pyarrow as pa

    from components.base.files import write_table

    _remove_strangers(folder / "store", done)
    contract.model_copy(update={"data_hash": _data_hash(done)}).save(folder)
    index = pa.Table.from_pylist([outcome.row for outcome in done], schema=index_schema())
    write_table(folder / "index.parquet", index)  # last: a store without an index is not finished


def _workers(asked: int, num_jobs: int) -> int:
    cores = asked or len(os.sched_getaffinity(0))
    return max(1, min(cores, num_jobs))


def _job(row: Mapping[str, Any], params: Params, contract: Contract, root: Path, store: Path) -> Job:
    from components.volumes.process import Job

    masks = tuple(
        (mask["name"], mask["path"], mask["sha256"], mask["labels_json"]) for mask in row["masks"] or []
    )
    limits = (params.limits.max_ratio, params.limits.max_voxels, params.limits.max_slices)
    keys = {name: row[name] for name in ("study_key", "patient_key", "series_key")}
    return Job(
        **keys,
        volume_path=row["volume_path"],
        volume_sha256=row["volume_sha256"],
        masks=masks,
        root=root,
        store=store,
        contract=contract,
        rules=params.rules,
        limits=limits,
    )


def _outcomes(jobs: list[Job], workers: int) -> Iterator[Outcome]:
    """Outcomes as they come; with one worker everything runs here."""
    from components.volumes.process import process

    if workers == 1:
        yield from map(process, jobs)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    # spawned, not forked: pyarrow's threads may hold locks
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        futures = [pool.submit(process, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise InputError(
                "a worker process was killed, most likely for want of memory",
                rule="preprocess.worker",
                fix="lower preprocess.workers and run again; finished volumes are kept",
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _remove_strangers(store: Path, done: list[Outcome]) -> None:
    """Remove files of series that are no longer in the manifest."""
    kept = {f"{outcome.job.series_key}.b2nd" for outcome in done}
    kept |= {f"{outcome.job.series_key}.{mask[0]}.b2nd" for outcome in done for mask in outcome.job.masks}
    for path in store.iterdir():
        if path.name not in kept:
            path.unlink()


def _data_hash(done: list[Outcome]) -> str:
    """16 hex digits for the content of the whole store."""
    from components.base.config import fingerprint

    return fingerprint([[outcome.row["series_key"], outcome.row["content_sha256"]] for outcome in done])


def _metrics(done: list[Outcome], quarantine: Any) -> dict[str, Any]:
    raw, packed = sum(item.raw_bytes for item in done), sum(item.file_bytes for item in done)
    ratios = [item.raw_bytes / item.file_bytes for item in done]
    return {
        "volumes": len(done),
        "quarantined": len(quarantine.series()),
        "masks": sum(len(item.job.masks) for item in done),
        "raw_bytes": raw,
        "store_bytes": packed,
        "compression_ratio_mean": round(sum(ratios) / len(ratios), 3),
        "noted": sum(bool(item.row["notes"]) for item in done),
    }


STEP = Step("preprocess", Params, run)

if __name__ == "__main__":
    raise SystemExit(STEP.main())
