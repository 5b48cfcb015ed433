"""Run one flow with Prefect's embedded API and SQLite, then print the table of results (`flows.__main__` calls it)."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from components.base.errors import VelvetError
from flows.environment import EMBEDDED, prepare, project_root


def reason(error: BaseException) -> tuple[str, int]:
    """What to tell the user of a failed flow, and the exit code."""
    from flows.reproduce import StageFailed

    if isinstance(error, VelvetError):
        return error.render(), error.exit_code
    if isinstance(error, StageFailed):
        return error.reason, error.exit_code if 0 < error.exit_code < 128 else 1
    return f"error: the flow failed with an unexpected {type(error).__name__}", 1


def summary(root: Path) -> str:
    """The table of results, the stages' times and peaks, the report's path and the Bento's tag."""
    from components.evaluation.summary import render_text, results_table
    from flows.resources import render_resources

    lines = [render_text(results_table(root)), "", render_resources(root), ""]
    report = root / "artifacts" / "gate" / "report.html"
    bento = root / "artifacts" / "package" / "bento.json"
    if report.exists():
        lines.append(f"report  {report.relative_to(root)}")
    if bento.exists():
        lines.append(f"bento   {json.loads(bento.read_text())['tag']}  (serve it with `make serve`)")
    return "\n".join(lines)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main(argv: list[str] | None = None) -> int:
    """Run the flow named in a JSON request; returns the exit code."""
    request: dict[str, Any] = json.loads((sys.argv[1:] if argv is None else argv)[0])
    root = project_root()
    prepare(root)
    os.environ[EMBEDDED] = "1"
    signal.signal(signal.SIGTERM, _terminated)
    module = importlib.import_module(f"flows.{request['flow']}")
    flow = getattr(module, request["flow"])
    try:
        outcomes = flow(**request["parameters"])
    except Exception as error:
        text, code = reason(error)
        print(text, file=sys.stderr, flush=True)
        return code
    print(summary(root), flush=True)
    for name in ("experiment", "champion"):
        if outcomes.get(name):
            print(f"{name}  {outcomes[name]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
