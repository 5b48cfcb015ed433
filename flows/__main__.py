"""Run a flow here and now, with Prefect's embedded API: `python -m flows pretrain [--preset NAME] [--set KEY=VALUE]`.

`python -m flows up` starts a Prefect server and a worker and deploys prefect.yaml; `down` stops them.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from components.base.errors import VelvetError

FLOWS = ("pretrain", "finetune", "evaluate", "release", "retrain")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="flows", description=(__doc__ or "").splitlines()[0])
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in FLOWS:
        one = commands.add_parser(name, help=f"run the flow {name}")
        one.add_argument("--preset", help="a named set of overrides from params.yaml")
        one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a dotted override")
        one.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name in {"release", "retrain"}:
            one.add_argument("--no-promote", action="store_true", help="leave the champion as it is")
    up = commands.add_parser("up", help="start a Prefect server and a worker, deploy prefect.yaml")
    up.add_argument("--port", type=int, default=4200, help="the server's port on 127.0.0.1")
    commands.add_parser("down", help="stop what `up` started")
    for name in ("up", "down"):
        commands.choices[name].add_argument("--debug", action="store_true", help="show the traceback")
    return top


def _parameters(args: argparse.Namespace) -> dict[str, Any]:
    import yaml

    overrides = {}
    for pair in args.set:
        key, _, text = pair.partition("=")
        overrides[key] = yaml.safe_load(text)
    parameters: dict[str, Any] = {"preset": args.preset, "overrides": overrides or None}
    if getattr(args, "no_promote", False):
        parameters["promote"] = False
    return parameters


def run_here(args: argparse.Namespace) -> int:
    """Check the parameters, then run the flow in a supervised process and print what it reached."""
    from flows.environment import environment, project_root
    from flows.overrides import resolve
    from flows.supervise import supervised

    root = project_root()
    parameters = _parameters(args)
    resolve(root, parameters["preset"], parameters["overrides"] or {})
    request = json.dumps({"flow": args.command, "parameters": parameters})
    with supervised(
        [sys.executable, "-m", "flows.embedded", request], cwd=root, env=environment(root)
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
        return process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        if args.command in FLOWS:
            return run_here(args)
        from flows.local import down, up

        return up(args.port) if args.command == "up" else down()
    except VelvetError as error:
        if args.debug:
            traceback.print_exc()
        print(error.render(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
