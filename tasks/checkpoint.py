"""Training checkpoints: tensors in safetensors, the rest in JSON, and never half of one.

A checkpoint is a folder with ``training.json`` and the tensor file that it names. The tensor file
of an epoch has its own name and is complete before the JSON file is replaced, so a kill at any
moment leaves the last finished epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SchemaError, TaskError
from ..schema import read_json, write_bytes, write_json

if TYPE_CHECKING:
    import torch

SCHEMA = "gnomon.training_checkpoint/1"
STATE_FILE = "training.json"


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands after a finished epoch.

    Args:
        identity: What the training is (seed, budget, settings, data): only the same goes on.
        epoch, step: Finished epochs and optimiser steps.
        seconds: Spent so far.
        curve: The metric after each epoch.
        metrics: Of the last epoch.
        tensors: Weights and optimiser state by name; optimiser scalars are tensors too.
        scalars: Optimiser state that is not a tensor, by name.
    """

    identity: Mapping[str, Any]
    epoch: int
    step: int
    seconds: float
    curve: tuple[float, ...]
    metrics: Mapping[str, float]
    tensors: Mapping[str, torch.Tensor]
    scalars: Mapping[str, float]


def save_state(folder: Path, state: TrainingState) -> None:
    """Makes ``state`` the folder's checkpoint.

    Raises:
        StudyError: If the folder cannot be written or the disk is full.
    """
    name = f"epoch-{state.epoch:05d}.safetensors"
    write_tensors(folder / name, state.tensors)
    data = {
        "identity": state.identity,
        "epoch": state.epoch,
        "step": state.step,
        "seconds": state.seconds,
        "curve": list(state.curve),
        "metrics": state.metrics,
        "scalars": state.scalars,
        "tensors": name,
    }
    write_json(folder / STATE_FILE, SCHEMA, data)
    for old in folder.glob("epoch-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load_state(folder: Path, identity: Mapping[str, Any]) -> TrainingState | None:
    """The folder's checkpoint, or None if there is none yet.

    Raises:
        SchemaError: If a file is damaged.
        TaskError: If the checkpoint is of another training.
    """
    if not (folder / STATE_FILE).exists():
        return None
    data = read_json(folder / STATE_FILE, SCHEMA)
    missing = {"identity", "epoch", "step", "seconds", "curve", "metrics", "scalars", "tensors"} - set(data)
    if missing:
        raise SchemaError(f"{folder / STATE_FILE} lacks {sorted(missing)}", hint="Delete the folder to train again.")
    if data["identity"] != dict(identity):
        found = data["identity"] if isinstance(data["identity"], dict) else {}
        differs = sorted(k for k in set(found) | set(identity) if found.get(k) != identity.get(k))
        raise TaskError(
            f"{folder} holds the checkpoint of another training: {', '.join(differs)} differ",
            field="checkpoint",
            value=str(folder),
            hint="Use another folder, or delete this one to train again.",
        )
    return TrainingState(
        identity=data["identity"],
        epoch=int(data["epoch"]),
        step=int(data["step"]),
        seconds=float(data["seconds"]),
        curve=tuple(float(value) for value in data["curve"]),
        metrics=data["metrics"],
        tensors=read_tensors(folder / str(data["tensors"])),
        scalars=data["scalars"],
    )


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes a safetensors file, atomically.

    Raises:
        StudyError: If it cannot be written.
    """
    import safetensors.torch

    # Clones, because tied weights share memory, which the format refuses.
    payload = safetensors.torch.save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
    write_bytes(path, payload)


def read_tensors(path: Path, hint: str = "Delete the folder to train again.") -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name.

    Raises:
        SchemaError: If it is missing or damaged; ``hint`` says what to do.
    """
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise SchemaError(f"cannot read {path}: {error}", hint=hint) from error
