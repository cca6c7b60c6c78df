"""Latency models as files: npz arrays and JSON that says where they come from."""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import zipfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ..errors import GnomonError, PredictorError
from ..schema import Record, read_json, write_json
from ..search_spaces import SearchSpace, space_from_spec
from .base import LatencyModel

SCHEMA = "gnomon.latency_model/1"
JSON_NAME = "latency_model.json"
ARRAYS_NAME = "latency_model.npz"


class SavableLatencyModel(LatencyModel):
    """A latency model that a few arrays and its space describe completely."""

    space: SearchSpace

    @abstractmethod
    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Numeric arrays by name."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, space: SearchSpace, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The model that :meth:`to_arrays` described; predicts the same to the last bit.

        Raises:
            PredictorError: If arrays are missing or do not fit the space.
        """


@dataclass(frozen=True)
class Provenance(Record):
    """What a model was adapted from. Adapting again from it gives the same model.

    Args:
        setting: Identity of the setting (``Setting.id``).
        predictor: Class path of the predictor.
        architectures: Keys of the measured architectures.
        latencies_ms: Their latencies, in the same order.
        statistic: Of the measurements, for example ``minimum``.
        details: Anything else, as JSON: the setting in full, the fingerprint, the date.
    """

    SCHEMA: ClassVar[str] = "gnomon.latency_model_provenance/1"

    setting: str
    predictor: str
    architectures: tuple[str, ...]
    latencies_ms: tuple[float, ...]
    statistic: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def save_model(folder: Path, model: SavableLatencyModel, provenance: Provenance) -> None:
    """Writes ``latency_model.npz`` and ``latency_model.json`` into ``folder``.

    Raises:
        PredictorError: If the folder cannot be written.
    """
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **model.to_arrays())
    content = stream.getvalue()
    temporary = folder / f".{ARRAYS_NAME}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, folder / ARRAYS_NAME)
        write_json(
            folder / JSON_NAME,
            SCHEMA,
            {
                "model": f"{type(model).__module__}.{type(model).__qualname__}",
                "space": model.space.spec(),
                "arrays_sha256": hashlib.sha256(content).hexdigest(),
                "provenance": provenance.to_dict(),
            },
        )
    except (OSError, GnomonError) as error:
        raise PredictorError(f"cannot write the model: {error}", field="folder", value=str(folder)) from error


def load_model(folder: Path) -> tuple[SavableLatencyModel, Provenance]:
    """Reads what :func:`save_model` wrote.

    Raises:
        SchemaError: If the JSON is missing, damaged or of another version.
        PredictorError: If the arrays are missing or damaged, or the model cannot be made.
        SpaceError: If the space cannot be made.
    """
    data = read_json(folder / JSON_NAME, SCHEMA)
    arrays = read_arrays(folder / ARRAYS_NAME, str(data.get("arrays_sha256")))
    model_class = _model_class(str(data.get("model")))
    space = space_from_spec(data.get("space") or {})
    return model_class.from_arrays(space, arrays), Provenance.from_dict(data.get("provenance") or {})


def read_arrays(path: Path, sha256: str) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an npz file.

    Raises:
        PredictorError: If it is missing, damaged, or not the file that has this digest.
    """
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise PredictorError("differs from what was saved", field="file", value=str(path), hint="Save it again.")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise PredictorError(f"cannot read arrays: {error}", field="file", value=str(path)) from error


def _model_class(path: str) -> type[SavableLatencyModel]:
    module_name, _, class_name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PredictorError("cannot import this latency model", field="model", value=path) from error
    if not (isinstance(found, type) and issubclass(found, SavableLatencyModel)):
        raise PredictorError("not a latency model that can be loaded", field="model", value=path)
    return found
