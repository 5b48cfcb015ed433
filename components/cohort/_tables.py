"""Reading tables that may be hostile or broken: CSV cells and the paths in them are checked before use.

A cell that would be a formula in a spreadsheet, holds control characters, or a path that leaves the source's
folder is refused with a rule; no message repeats what the cell holds.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.base.errors import InputError

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FORMULA = ("=", "+", "-", "@")
_TEXT_FORMULA = re.compile(r"\s*[=@]")
MAX_TEXT_BYTES = 1 << 20


@dataclass(frozen=True)
class Row:
    """A row of a table: its number (1 = first below the header) and its cells by column, stripped."""

    number: int
    cells: Mapping[str, str]

    def get(self, column: str | None) -> str:
        """The cell of a column; empty for a column that is not used."""
        return self.cells[column] if column else ""


def refuse(what: str, rule: str, fix: str = "correct the row in the source's table") -> InputError:
    """The error for one row or file of a source; it leads to quarantine."""
    return InputError(what, rule=rule, fix=fix)


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a UTF-8 CSV file that must have `columns`; a table that cannot be read is an `InputError`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            missing = [name for name in columns if name not in header]
            if missing or len(set(header)) != len(header):
                what = f"lacks the column {missing[0]}" if missing else "has a column twice"
                raise refuse(
                    f"the table {path.name} {what}", "table.columns", "correct the table or the options"
                )
            for number, cells in enumerate(reader, start=1):
                if None in cells or None in cells.values():
                    raise refuse(
                        f"row {number} of {path.name} has more or fewer cells than its header", "table.cells"
                    )
                yield Row(number, {name: cell.strip() for name, cell in cells.items()})
    except FileNotFoundError:
        raise refuse(
            f"the source has no table {path.name}", "table.missing", "check ingest.root, path and options"
        ) from None
    except UnicodeDecodeError:
        raise refuse(f"the table {path.name} is not UTF-8", "table.encoding", "save it as UTF-8") from None
    except csv.Error:
        raise refuse(f"the table {path.name} is not CSV", "table.malformed", "export it again") from None


def check_cell(text: str, column: str) -> str:
    """An identifier, code, name or path as it stands; a formula or a control character is refused."""
    if _CONTROL.search(text):
        raise refuse(f"the cell {column} holds a line break or control character", "table.control")
    if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        raise refuse(f"the cell {column} is a spreadsheet formula", "table.formula")
    return text


def check_id(text: str, column: str) -> str:
    """A cell that identifies something and so may not be empty."""
    if not text:
        raise refuse(f"the cell {column} is empty", "table.empty")
    return check_cell(text, column)


def check_text(text: str, column: str) -> str | None:
    """Free text (line breaks allowed); empty becomes None, a formula is refused."""
    if _TEXT_FORMULA.match(text):
        raise refuse(f"the cell {column} is a spreadsheet formula", "table.formula")
    if "\x00" in text:
        raise refuse(f"the cell {column} holds a control character", "table.control")
    return text if text.strip() else None


def below(root: Path, relative: str) -> Path:
    """The path `relative` below `root`; anything that leaves it, or passes a symbolic link, is refused."""
    if _CONTROL.search(relative):
        raise refuse("a path holds a line break or control character", "path.control")
    if relative.startswith(("\\\\", "//")):
        raise refuse("a path names another machine", "path.unc")
    if relative.startswith(("/", "~")) or re.match(r"[A-Za-z]:", relative):
        raise refuse("a path is absolute", "path.absolute")
    if "\\" in relative:
        raise refuse("a path holds a backslash", "path.separator")
    if relative.startswith(_FORMULA):
        raise refuse("a path is a spreadsheet formula", "path.formula")
    if not relative or ".." in relative.split("/"):
        raise refuse("a path leaves the source's folder", "path.traversal")
    path = root
    for part in Path(relative).parts:
        path = path / part
        if path.is_symlink():
            raise refuse("a path passes a symbolic link", "path.link", "put the file itself there")
    return path


def read_text(path: Path) -> str | None:
    """A report's text with its line ends as they are; None if blank; missing or not UTF-8 is refused."""
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise refuse("the report is larger than 1 MiB", "report.too_large")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise refuse("the report that the table names is not there", "report.missing") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise refuse("the report is not UTF-8 text", "report.encoding", "save it as UTF-8") from None
    if "\x00" in text:
        raise refuse("the report holds a control character", "report.encoding", "save it as UTF-8")
    return text if text.strip() else None
