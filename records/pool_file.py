"""Pools as files of our own: npz with a JSON header, no pickle."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SchemaError
from ..schema import check_schema, write_bytes
from ..search_spaces import space_from_spec
from .pool import DevicePool
from .table_file import SCHEMA as TABLE_SCHEMA
from .table_file import load_table

SCHEMA = "gnomon.device_pool/1"


def save_pool(pool: DevicePool, path: Path) -> None:
    """Writes ``pool`` as one npz file, atomically. Feature-only pools, too.

    Raises:
        StudyError: If the folder cannot be written.
    """
    header = {
        "schema": SCHEMA,
        "settings": list(pool.settings),
        "source": pool.source,
        "space": None if pool.space is None else pool.space.spec(),
        "feature_names": list(pool.feature_names),
        "notes": dict(pool.notes),
        "provenance": {name: dict(known) for name, known in pool.provenance.items()},
    }
    arrays: dict[str, npt.NDArray[Any]] = {"latencies_ms": pool.latencies_ms}
    if pool.genotypes is not None:
        arrays["genotypes"] = pool.genotypes
    if pool.features is not None:
        arrays["features"] = pool.features
    stream = io.BytesIO()
    np.savez_compressed(stream, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
    write_bytes(path, stream.getvalue())


def load_pool(path: str | Path) -> DevicePool:
    """Reads what :func:`save_pool` wrote, or the latencies of an imported table; usable as a
    config's ``_target_``.

    Raises:
        SchemaError: If the file is missing, damaged or of another schema.
        DataError: If it is a table without latencies.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if not isinstance(header, dict):
                raise ValueError("its header is no JSON object")
            if header.get("schema") == TABLE_SCHEMA:
                return DevicePool.from_table(load_table(path)).measured()
            arrays = {name: file[name] for name in file.files if name != "header"}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise SchemaError(f"cannot read {path} as a pool: {error}") from error
    check_schema(header, SCHEMA, source=path)
    try:
        space = None if header["space"] is None else space_from_spec(header["space"])
        genotypes = None if space is None else space.algebra.validate(arrays["genotypes"])
        return DevicePool(
            tuple(header["settings"]),
            arrays["latencies_ms"],
            header["source"],
            space,
            genotypes,
            arrays.get("features"),
            tuple(header["feature_names"]),
            header["notes"],
            header.get("provenance", {}),
        )
    except (KeyError, TypeError) as error:
        raise SchemaError(f"{path} is not a whole pool: {error}") from error
