"""The frame of a stage: arguments, parameters, log, progress, metrics, resources and errors.

A stage's module defines `Params` (a `Config`), `run(params, context) -> metrics` and

    STEP = Step("ingest", Params, run)

    if __name__ == "__main__":
        raise SystemExit(STEP.main())

so that `python -m components.cohort.ingest` works alone, without DVC and without Prefect.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import VelvetError

if TYPE_CHECKING:
    from components.base.config import Config

INTERNAL_ERROR = 70


@dataclass
class StepContext:
    """Where a running stage finds its inputs and puts its outputs; all paths below `root`."""

    root: Path
    stage: str
    item: str | None
    log: logging.Logger
    all_params: Mapping[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    _last_progress: float = 0.0

    @property
    def label(self) -> str:
        """`stage`, or `stage-item` for a stage with items."""
        return f"{self.stage}-{self.item}" if self.item else self.stage

    def artifacts(self, stage: str, item: str | None = None) -> Path:
        """`artifacts/STAGE[/ITEM]`: what a stage leaves for others, free of PHI."""
        folder = self.root / "artifacts" / stage
        return folder / item if item else folder

    def restricted(self, stage: str) -> Path:
        """`restricted/STAGE`: identifiable data, mode 0700, with a DVC remote of its own."""
        return self.root / "restricted" / stage

    @property
    def out(self) -> Path:
        """This stage's own folder below artifacts/, made on first use."""
        folder = self.artifacts(self.stage, self.item)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def restricted_out(self) -> Path:
        """This stage's own folder below restricted/, mode 0700, made on first use."""
        from components.base.files import restricted_folder

        restricted_folder(self.root / "restricted")
        return restricted_folder(self.restricted(self.stage))

    def progress(self, done: int, total: int, unit: str = "studies", **extra: float) -> None:
        """Publish progress to logs/LABEL.progress.json, at most twice a second."""
        now = time.monotonic()
        if done < total and now - self._last_progress < 0.5:
            return
        self._last_progress = now
        from components.base.files import write_json

        elapsed = now - self.started
        remaining = elapsed / done * (total - done) if done else None
        state = {"done": done, "total": total, "unit": unit, "elapsed_s": round(elapsed, 1)}
        state |= {"remaining_s": None if remaining is None else round(remaining, 1), **extra}
        write_json(self.root / "logs" / f"{self.label}.progress.json", state)


Run = Callable[[Any, StepContext], Mapping[str, Any]]


@dataclass(frozen=True)
class Step:
    """A stage that can be run: its name, its block's model, its function and its item's word.

    `params` is the block's model, or for a stage with items a function from an item to its model.
    """

    name: str
    params: type[Config] | Callable[[str], type[Config]]
    run: Run
    item: str | None = None

    def parser(self) -> argparse.ArgumentParser:
        """The command line, which every stage shares."""
        module = sys.modules[self.run.__module__]
        summary = (module.__doc__ or self.name).strip().splitlines()[0]
        parser = argparse.ArgumentParser(prog=self.name, description=summary)
        if self.item:
            parser.add_argument(f"--{self.item}", dest="item", required=True, metavar="NAME")
        parser.add_argument("--root", type=Path, default=Path(), help="the project's root")
        parser.add_argument("--params", type=Path, help="default: params.yaml below the root")
        parser.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="a dotted override"
        )
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return parser

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the stage from the command line; returns the exit code."""
        args = self.parser().parse_args(argv)
        try:
            context, params = self._prepare(args)
            self.execute(params, context)
        except VelvetError as error:
            if args.debug:
                traceback.print_exc()
            print(error.render(), file=sys.stderr)
            return error.exit_code
        except Exception as error:  # the text of an unexpected error may hold PHI
            if args.debug:
                traceback.print_exc()
                return INTERNAL_ERROR
            frame = traceback.extract_tb(error.__traceback__)[-1]
            print(
                f"error: {self.name} met an unexpected {type(error).__name__}\n"
                f"  rule: internal ({Path(frame.filename).name}:{frame.lineno})\n"
                "  fix:  run again with --debug to see the traceback",
                file=sys.stderr,
            )
            return INTERNAL_ERROR
        return 0

    def _prepare(self, args: argparse.Namespace) -> tuple[StepContext, Config]:
        import yaml

        from components.base.config import load_params, lookup, parse, with_overrides

        root = args.root.resolve()
        values = load_params(args.params or root / "params.yaml")
        overrides = {}
        for pair in args.set:
            key, _, text = pair.partition("=")
            overrides[key] = yaml.safe_load(text)
        values = with_overrides(values, overrides)
        item = getattr(args, "item", None)
        where = f"{self.name}.{item}" if item else self.name
        block = lookup(values, where) or {}
        choose: Any = self.params
        kind = choose(item) if self.item else choose
        params = parse(kind, block, where)
        label = f"{self.name}-{item}" if item else self.name
        log = _logger(root, label)
        return StepContext(root, self.name, item, log, values), params

    def execute(self, params: Config, context: StepContext) -> dict[str, Any]:
        """Run the stage's function, then write its metrics and the resources that it used."""
        from components.base.files import write_json

        context.log.info("%s starts", context.label)
        status = "failed"
        try:
            metrics = dict(self.run(params, context))
            if is_first_process():
                write_json(context.out / "metrics.json", metrics)
            status = "done"
        finally:
            used = {**resources(context.started), "status": status}
            if is_first_process():
                write_json(context.root / "logs" / f"{context.label}.resources.json", used)
            context.log.info(
                "%s %s in %.1f s, peak %.2f GB",
                context.label,
                status,
                used["wall_s"],
                used["peak_bytes"] / 1e9,
            )
        return metrics


def is_first_process() -> bool:
    """Whether this process writes: of the processes of a distributed stage (RANK, as torchrun sets it) rank 0."""
    return os.environ.get("RANK", "0") == "0"


def resources(started: float) -> dict[str, Any]:
    """Wall-clock seconds since `started` and this process's (or a child's) peak memory in bytes."""
    import resource

    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"wall_s": round(time.monotonic() - started, 2), "peak_bytes": peak * 1024}


def _logger(root: Path, label: str) -> logging.Logger:
    """A logger to logs/LABEL.log (this run only) and to the terminal."""
    folder = root / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger(f"velvet.{label}")
    log.setLevel(os.environ.get("VELVET_LOG_LEVEL", "INFO").upper())
    log.propagate = False
    for old in list(log.handlers):
        old.close()
        log.removeHandler(old)
    line = logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if is_first_process():
        handlers.insert(0, logging.FileHandler(folder / f"{label}.log", mode="w", encoding="utf-8"))
    else:
        log.setLevel(logging.WARNING)
    for handler in handlers:
        handler.setFormatter(line)
        log.addHandler(handler)
    return log
