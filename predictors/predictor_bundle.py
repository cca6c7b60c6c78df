"""What a predictor learnt from a pool, as files: npz arrays and JSON that says where they come from."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import GnomonError, PredictorError
from ..schema import Record, read_json, write_bytes, write_json
from ..search_spaces import SearchSpace
from .base import LatencyPredictor
from .bundle import read_arrays

SCHEMA = "gnomon.predictor_bundle/1"
JSON_NAME = "predictor.json"
ARRAYS_NAME = "predictor.npz"


@dataclass(frozen=True)
class Learnt(Record):
    """Where a predictor's knowledge comes from. Fitting again from it gives the same.

    Args:
        predictor: Class path.
        space: Its spec.
        source: Of the pool.
        settings: It learnt from.
        architectures: Rows of the pool.
        seed: Of the fit.
        seconds: It took.
        details: Anything else, as JSON: the config, the date, the version.
    """

    SCHEMA: ClassVar[str] = "gnomon.learnt/1"

    predictor: str
    space: Mapping[str, Any]
    source: str
    settings: tuple[str, ...]
    architectures: int
    seed: int = 0
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


def class_path(predictor: LatencyPredictor) -> str:
    """``module.Class`` of a predictor."""
    return f"{type(predictor).__module__}.{type(predictor).__qualname__}"


def save_predictor(folder: Path, predictor: LatencyPredictor, learnt: Learnt) -> None:
    """Writes ``predictor.npz`` and ``predictor.json`` into ``folder``; the JSON last.

    Raises:
        PredictorError: If the predictor learnt nothing, or the folder cannot be written.
    """
    state = predictor.state()
    if not state:
        raise PredictorError("learnt nothing that could be saved", field="predictor", value=type(predictor).__name__)
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **state)
    content = stream.getvalue()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / ARRAYS_NAME, content)
        write_json(
            folder / JSON_NAME,
            SCHEMA,
            {
                "decisions": decisions_digest(predictor.space),
                "arrays_sha256": hashlib.sha256(content).hexdigest(),
                "learnt": learnt.to_dict(),
            },
        )
    except (OSError, GnomonError) as error:
        raise PredictorError(f"cannot write the bundle: {error}", field="folder", value=str(folder)) from error


def load_state(folder: Path, predictor: LatencyPredictor) -> dict[str, npt.NDArray[Any]]:
    """The arrays for ``predictor.restore``.

    Raises:
        SchemaError: If the JSON is missing, damaged or of another version.
        PredictorError: If the arrays are missing or damaged, or the bundle is of another predictor
            or of a space with other decisions.
    """
    data = read_json(folder / JSON_NAME, SCHEMA)
    learnt = Learnt.from_dict(data.get("learnt") or {})
    if learnt.predictor != class_path(predictor):
        raise PredictorError(
            "the bundle is of another predictor", field="bundle", value=learnt.predictor, allowed=class_path(predictor)
        )
    if data.get("decisions") != decisions_digest(predictor.space):
        raise PredictorError(
            "the bundle was learnt on a space with other decisions",
            field="bundle",
            value=learnt.space.get("_target_"),
            allowed=str(predictor.space.spec()["_target_"]),
        )
    return read_arrays(folder / ARRAYS_NAME, str(data.get("arrays_sha256")))


def read_learnt(folder: Path) -> Learnt:
    """Provenance of a bundle.

    Raises:
        SchemaError: If the JSON is missing, damaged or of another version.
    """
    return Learnt.from_dict(read_json(folder / JSON_NAME, SCHEMA).get("learnt") or {})


def decisions_digest(space: SearchSpace) -> str:
    """Of names and choices: what must agree for a predictor to serve a space. Number of classes or
    image size may differ, as a latency predictor is adapted to each setting anyway."""
    text = repr([(d.name, d.choices) for d in space.decisions])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
