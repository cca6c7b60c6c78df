"""A finished supernet on disk: its weights in safetensors, its training in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TaskError
from ..records.shared_training import SharedTraining
from ..schema import read_json, write_json
from .checkpoint import read_tensors, write_tensors

if TYPE_CHECKING:
    import torch

RECORD_FILE = "supernet.json"
WEIGHTS_FILE = "supernet.safetensors"


def save_supernet(folder: Path, tensors: Mapping[str, torch.Tensor], record: SharedTraining) -> None:
    """Writes weights, then the record, so that the record's presence means that all is there.

    Raises:
        StudyError: If the folder cannot be written.
    """
    write_tensors(folder / WEIGHTS_FILE, tensors)
    write_json(folder / RECORD_FILE, SharedTraining.SCHEMA, record.to_dict())


def load_supernet(folder: Path, identity: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], SharedTraining] | None:
    """The finished supernet in ``folder``, or None if there is none yet.

    Raises:
        SchemaError: If a file is damaged.
        TaskError: If it was trained otherwise.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        return None
    record = SharedTraining.from_dict({"schema": SharedTraining.SCHEMA, **read_json(path, SharedTraining.SCHEMA)})
    if record.identity != dict(identity):
        differs = sorted(k for k in {*record.identity, *identity} if record.identity.get(k) != identity.get(k))
        raise TaskError(
            f"{folder} holds another supernet: {', '.join(differs)} differ",
            field="quality",
            value=str(folder),
            hint="Use another study, or delete this folder to train again.",
        )
    return read_tensors(folder / WEIGHTS_FILE), record
