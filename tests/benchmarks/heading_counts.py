"""How often each heading of the table begins a line of a report: `python tests/benchmarks/heading_counts.py FILE`.

FILE holds one text a record (`.jsonl` with `text`, or `.csv` with `text` or `transcription`). With `--write` the counts
become the column of `components/reports/lexicon/headings.tsv`, which is then sorted by them.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from components.reports.headings import normalised, table
from components.reports.lexicon import FOLDER

_LABEL = re.compile(r"(?:^|[\r\n]|,(?= ?[A-Z]{4}))[ \t]*([A-Za-z][A-Za-z0-9 /&()'-]{2,50}?) ?:")


def texts(path: Path) -> Iterator[str]:
    """The texts of a file."""
    with path.open(encoding="utf-8", newline="") as stream:
        if path.suffix == ".jsonl":
            yield from (json.loads(line)["text"] for line in stream)
        else:
            yield from ((row.get("transcription") or row.get("text") or "") for row in csv.DictReader(stream))


def counted(source: Iterable[str]) -> Counter[str]:
    """In how many texts each heading of the table begins a line."""
    known, found = table(), Counter[str]()
    for text in source:
        found.update({key for words in _LABEL.findall(text) if (key := normalised(words)) in known})
    return found


def main() -> int:
    """Count, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    found = counted(text for path in given.file for text in texts(path))
    if not given.write:
        json.dump(dict(found.most_common()), sys.stdout, indent=1)
        print()
        return 0
    path = FOLDER / "headings.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("heading\t")) + 1
    rows = [line.split("\t") for line in lines[begin:]]
    rows = [[*row[:4], str(found[normalised(row[0])])] for row in rows]
    groups: dict[tuple[str, str, str], list[list[str]]] = {}
    for row in rows:
        groups.setdefault((row[2], row[1], row[3]), []).append(row)
    ordered = [
        row for group in groups.values() for row in sorted(group, key=lambda row: (-int(row[4]), row[0]))
    ]
    path.write_text(
        "\n".join([*lines[:begin], *("\t".join(row) for row in ordered)]) + "\n", encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
