"""Everything in a store as a table for other programs: a row a run, of whatever version."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from greedylr.lab.execution.store import Store, Stored
from greedylr.presentation import whole
from greedylr.pulse.recording.storage import cell

_COLUMNS = {
    "key": "string",
    "problem": "string",
    "optimizer": "string",
    "multiplier": "float64",
    "scheduler": "string",
    "perturbation": "string",
    "seed": "int64",
    "steps": "int64",
    "absolute": "bool",
    "lr": "float64",
    "start_loss": "float64",
    "final_loss": "float64",
    "metric": "float64",
    "failure": "string",
    "versions": "string",
    "code": "string",
    "arithmetic": "string",
}
_CURVES = {
    "losses": "float64",
    "lrs": "float64",
    "clean_losses": "float64",
    "validation_steps": "int64",
    "validation_losses": "float64",
}
_ROWS = 1000  # At a time, for curves are large.


def export(store: Store, file: Path) -> int:
    """Write a table; a file that is there is replaced, once the new one is complete.

    Args:
        store: What to write.
        file: Where. ``.parquet`` holds the curves too, as lists; ``.csv`` does not.

    Returns:
        The number of rows.

    Raises:
        ValueError: If the name ends otherwise.
        OSError: If the file cannot be written.
        ModuleNotFoundError: If it is a Parquet file, and there is no pyarrow.
    """
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    if file.suffix not in writers:
        raise ValueError(f"the name of the file must end in {' or '.join(writers)}, got {file.name}")
    with whole(file) as part:
        return writers[file.suffix](store, part)


def _row(stored: Stored) -> dict[str, Any]:
    """The columns without the curves: what was run, what it depended on, what came of it."""
    result = stored.result
    return {
        "key": stored.key,
        **result.run._asdict(),
        "lr": stored.settings["lr"],
        "start_loss": result.start_loss,
        "final_loss": result.final_loss,
        "metric": result.metric,
        "failure": result.failure,
        "versions": " ".join(f"{name}={version}" for name, version in stored.settings["versions"].items()),
        "code": stored.settings["code"],
        "arithmetic": result.arithmetic,
    }


def _write_csv(store: Store, file: Path) -> int:
    count = 0
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(_COLUMNS))
        writer.writeheader()
        for stored in store.everything():
            writer.writerow({name: cell(one) if isinstance(one, str) else one for name, one in _row(stored).items()})
            count += 1
    return count


def _write_parquet(store: Store, file: Path) -> int:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    columns = [(name, pa.type_for_alias(kind)) for name, kind in _COLUMNS.items()]
    curves = [(name, pa.list_(pa.type_for_alias(kind))) for name, kind in _CURVES.items()]
    schema = pa.schema(columns + curves)
    count = 0
    with parquet.ParquetWriter(file, schema) as writer:
        for some in _by(_ROWS, store.everything()):
            rows = [_row(stored) | {name: getattr(stored.result, name) for name in _CURVES} for stored in some]
            writer.write_table(pa.Table.from_pylist(rows, schema))
            count += len(rows)
    return count


def _by(size: int, everything: Iterator[Stored]) -> Iterator[list[Stored]]:
    chunk: list[Stored] = []
    for stored in everything:
        chunk.append(stored)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
