"""Imported tables as files of our own: npz with a JSON header, no pickle."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from ..errors import SchemaError
from ..schema import check_schema, write_bytes
from ..search_spaces import space_from_spec
from .table import ArchitectureTable

SCHEMA = "gnomon.architecture_table/1"
POOL = "gnomon.device_pool/"
_COLUMN = "column/"


def save_table(table: ArchitectureTable, path: Path) -> None:
    """Writes ``table`` as one npz file, atomically.

    Raises:
        StudyError: If the folder cannot be written.
    """
    header = {
        "schema": SCHEMA,
        "space": table.space.spec(),
        "source": table.source,
        "notes": dict(table.notes),
        "settings": dict(table.settings),
    }
    arrays = {_COLUMN + name: values for name, values in table.columns.items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, header=np.array(json.dumps(header)), genotypes=table.genotypes, **arrays)  # type: ignore[arg-type]
    write_bytes(path, stream.getvalue())


def load_table(path: str | Path) -> ArchitectureTable:
    """Reads what :func:`save_table` wrote, or an imported pool; usable as a config's ``_target_``.

    Raises:
        SchemaError: If the file is missing, damaged or of another schema.
        DataError: If it is a pool without architectures.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        if isinstance(header, dict) and str(header.get("schema")).startswith(POOL):
            from .pool_file import load_pool  # which reads tables by this function

            return load_pool(path).to_table()
        genotypes = arrays.pop("genotypes")
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise SchemaError(f"cannot read {path} as an imported table: {error}") from error
    check_schema(header, SCHEMA, source=path)
    space = space_from_spec(header["space"])
    columns = {name.removeprefix(_COLUMN): values for name, values in arrays.items()}
    return ArchitectureTable(
        space,
        space.algebra.validate(genotypes),
        columns,
        header["source"],
        header["notes"],
        header.get("settings", {}),  # files written before tables named their latencies
    )
