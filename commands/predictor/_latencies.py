"""Measured latencies as a user writes them down: CSV or JSON.

Each entry names an architecture by ``architecture`` (a key or a named network), by ``config`` (JSON:
an object of choices) or by one column for each decision (CSV), and says its ``latency_ms``.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import DataError, SpaceError
from ...schema import SCHEMA_KEY, check_schema

if TYPE_CHECKING:
    from ...search_spaces import Genotypes, SearchSpace

REFERENCES_SCHEMA = "gnomon.references/1"
LATENCY = "latency_ms"
NAMES = ("architecture", "key", "config")

Entry = Mapping[str, Any]


def space_of(path: Path) -> dict[str, Any] | None:
    """The spec of the space that a file of references names; None for any other file."""
    data = _json(path) if path.suffix == ".json" else None
    if isinstance(data, dict) and isinstance(data.get("space"), dict):
        return dict(data["space"])
    return None


def read_latencies(path: Path, space: SearchSpace) -> tuple[Genotypes, npt.NDArray[np.float64]]:
    """Canonical rows ``(N, D)`` and latencies in ms ``(N,)``, in the file's order. Entries without a
    latency (null or empty) were not measured and are left out.

    Raises:
        DataError: If the file cannot be read, names no architectures, or a latency is no positive number.
        SpaceError: If an architecture is none of ``space``.
    """
    rows, latencies = [], []
    for number, entry in enumerate(_entries(path), start=1):
        value = entry.get(LATENCY)
        if value is None or value == "":
            continue
        where = f"entry {number} of {path}"
        latencies.append(_latency(value, where))
        rows.append(_row(entry, space, where))
    if not rows:
        raise DataError(f"no {LATENCY} in it", field="from", value=str(path), hint=f"Fill in {LATENCY} for each entry.")
    return np.stack(rows), np.array(latencies)


def _entries(path: Path) -> Sequence[Entry]:
    found: Any
    if path.suffix == ".csv":
        try:
            with path.open(newline="", encoding="utf-8-sig") as stream:
                found = list(csv.DictReader(stream))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"cannot read it: {error}", field="from", value=str(path)) from error
    elif path.suffix == ".json":
        data = _json(path)
        if isinstance(data, dict) and SCHEMA_KEY in data:
            check_schema(data, REFERENCES_SCHEMA, source=path)
        found = data.get("architectures") if isinstance(data, dict) else data
    else:
        raise DataError("not a file of latencies", field="from", value=str(path), allowed="a .csv or a .json file")
    if not isinstance(found, list) or not found or not all(isinstance(entry, dict) for entry in found):
        raise DataError(
            "lists no architectures",
            field="from",
            value=str(path),
            allowed=f"entries with one of {NAMES} and {LATENCY}",
        )
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"cannot read it: {error}", field="from", value=str(path)) from error


def _latency(value: Any, where: str) -> float:
    try:
        latency = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        latency = math.nan
    if not (math.isfinite(latency) and latency > 0):
        raise DataError(f"{where} has no such latency", field=LATENCY, value=value, allowed="a positive number, in ms")
    return latency


def _row(entry: Entry, space: SearchSpace, where: str) -> Genotypes:
    try:
        return _named_row(entry, space, where)
    except SpaceError as error:
        raise SpaceError(
            f"{where} is no architecture of {space.name}: {error}", hint="space=NAME names another space."
        ) from error


def _named_row(entry: Entry, space: SearchSpace, where: str) -> Genotypes:
    config = entry.get("config")
    if isinstance(config, dict):
        return space.genotype(config)
    name = entry.get("architecture") or entry.get("key")
    if name:
        if name in space.named:
            return space.named_genotype(str(name))
        row: Genotypes = space.canonical(space.algebra.from_key(str(name))[None])[0]
        return row
    columns = {d.name: entry[d.name] for d in space.decisions if entry.get(d.name) not in (None, "")}
    if not columns:
        raise DataError(
            f"{where} names no architecture",
            field="columns",
            value=sorted(str(key) for key in entry),
            allowed=f"one of {', '.join(NAMES)}, or a column for each decision of {space.name}",
        )
    return space.genotype({name: _choice(space, name, text) for name, text in columns.items()})


def _choice(space: SearchSpace, decision: str, text: str) -> Any:
    """The choice that a CSV's cell says: choices that are numbers are written as such."""
    choices = next(d.choices for d in space.decisions if d.name == decision)
    return next((choice for choice in choices if str(choice).lower() == str(text).strip().lower()), text)
