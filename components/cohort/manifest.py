"""The written schemas of the tables that pass between stages, and how to read and write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


def schemas() -> dict[str, pa.Schema]:
    """Every table's schema by its name (pyarrow is imported only here)."""
    import pyarrow as pa

    text, label = pa.string(), pa.struct([("name", pa.string()), ("value", pa.int8())])
    mask = pa.struct([("name", text), ("path", text), ("sha256", text), ("labels_json", text)])
    ids = [("study_key", text), ("patient_key", text), ("series_key", text)]
    described = [("modality", text), ("source", text), ("provenance", text)]
    files = [("volume_path", text), ("volume_sha256", text), ("masks", pa.list_(mask))]
    person = [("sex", text), ("age_band", text)]
    raw = [("report", pa.large_string()), ("labels", pa.list_(label))]
    span = [("study_key", text), ("start", pa.int64()), ("end", pa.int64()), ("kind", text)]
    tables: dict[str, list[tuple[str, pa.DataType]]] = {
        "manifest": [*ids, *described, *files, *person, *raw],
        "deidentified_manifest": [*ids, *described, *files, *person],
        "identities": [("study_key", text), ("kind", text), ("value", text)],
        "gold_spans": span,
        "quarantine": [("study_key", text), ("series_key", text)]
        + [(name, text) for name in ("stage", "rule", "reason")],
        "reports": [("study_key", text), ("text", pa.large_string())],
        "labels": [("study_key", text), ("name", text), ("value", pa.int8())],
        "audit": [*span, ("layer", text), ("rule", text), ("action", text), ("detail", text)],
        "split": [*ids, ("split", text), ("paired", pa.bool_()), ("provenance", text)],
    }
    return {name: pa.schema(fields) for name, fields in tables.items()}


def table(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A table of a named schema from row mappings; the order of rows is kept."""
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row) for row in rows], schema=schemas()[name])


def write_rows(path: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as the named table, atomically."""
    from components.base.files import write_table

    write_table(path, table(name, rows))


def read_rows(path: Path, name: str) -> list[dict[str, Any]]:
    """Read a named table as row dicts; columns that are not the schema's are an `InputError`."""
    from components.base.files import read_table

    found, expected = read_table(path), schemas()[name]
    if not found.schema.equals(expected):
        wrong = sorted(set(found.schema.names) ^ set(expected.names))
        raise InputError(
            f"{path.name} does not have the columns of a {name} table ({', '.join(wrong) or 'types differ'})",
            rule=f"schema.{name}",
            fix="run the stage that writes it again",
        )
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows
