"""Run or go on with an ablation of ablations.yaml: `python -m flows.ablation [NAME] [--arms A B] [--seeds 1 2]`."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from components.base.errors import VelvetError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="flows.ablation", description=(__doc__ or "").splitlines()[0])
    top.add_argument("name", nargs="?", default="phantom", help="an entry of `ablations`")
    top.add_argument("--arms", nargs="+", metavar="ARM", help="these arms only")
    top.add_argument("--seeds", nargs="+", type=int, metavar="N", help="these seeds in place of the entry's")
    top.add_argument("--out", type=Path, help="default: artifacts/ablation/NAME below the root")
    top.add_argument("--dry-run", action="store_true", help="list the cells and what is done")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return top


def run(args: argparse.Namespace) -> int:
    """Plan, run what is missing, write the tables and pictures."""
    from components.base.files import write_bytes, write_text
    from components.evaluation.statistics import Bootstrap
    from flows.ablation.page import curves_picture, markdown, picture, table_csv
    from flows.ablation.plan import load_values, make_plan
    from flows.ablation.run import describe, git_state, run_plan, work_folder
    from flows.ablation.table import aggregate
    from flows.environment import project_root
    from flows.workspace import exclusive

    root = project_root()
    plan = make_plan(root, load_values(root), args.name, args.arms, args.seeds)
    if args.dry_run:
        for cell in plan.cells:
            done = (work_folder(root) / "cells" / cell.key / "result.json").exists()
            print(f"{cell.key}  {'done ' if done else 'to do'}  {describe(cell)}")
        return 0
    with exclusive(root):
        cells = run_plan(root, plan, lambda line: print(line, flush=True))
    settings = plan.settings
    rows = aggregate(cells, settings.baseline, Bootstrap(2000, seed=7))
    titles = {name: arm.title for name, arm in settings.arms.items()}
    folder = args.out or root / "artifacts" / "ablation" / args.name
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(rows, titles, settings.baseline)
    curves: dict[str, list[Path]] = {}
    for result, place in cells:
        curves.setdefault(str(result["arm"]), []).append(place / "artifacts" / "pretrain" / "curves.csv")
    write_text(folder / "table.md", text + "\n")
    write_text(folder / "table.csv", table_csv(rows))
    write_bytes(folder / "table.png", picture(rows, titles))
    for wanted in ("validation.report_contrast", "validation.total"):
        write_bytes(folder / f"{wanted.replace('.', '_')}.png", curves_picture(curves, titles, wanted))
    print(text)
    print(f"\ncode {git_state(root)}, data {plan.data_key}; tables and pictures in {folder.name}/")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        return run(args)
    except VelvetError as error:
        if args.debug:
            traceback.print_exc()
        print(error.render(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
