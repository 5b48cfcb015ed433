"""One process of an ablation: the given stages in order, in the folder given by --root."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from components.base.config import load_params
from components.base.stages import STAGES


def main(argv: Sequence[str] | None = None) -> int:
    """Run `--stages A B ...` below `--root`; returns the exit code of the first that fails, else 0."""
    parser = argparse.ArgumentParser(prog="flows.ablation.cell", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="the folder with params.yaml")
    parser.add_argument("--stages", nargs="+", required=True, metavar="STAGE")
    args = parser.parse_args(argv)
    known = {stage.name: stage for stage in STAGES}
    values = load_params(args.root / "params.yaml")
    for name in args.stages:
        stage = known[name]
        step = importlib.import_module(stage.module).STEP
        for words in [[f"--{stage.item}", item] for item in values[name]] if stage.item else [[]]:
            code = int(step.main(["--root", str(args.root), *words]))
            if code:
                return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
