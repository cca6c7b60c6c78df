"""A language model's folder: its weights and what it is made of, from which torch rebuilds it.

A folder that a search or :func:`save_language_model` wrote has ``model.json``, a
:class:`~gnomon.search_spaces.hybrid_slm.specs.LanguageModelSpec`, and ``weights.safetensors``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SchemaError, StudyError
from ...schema import SCHEMA_KEY, read_json, write_json
from .specs import LanguageModelSpec

if TYPE_CHECKING:
    from .model import LanguageModel

SPEC = "model.json"
WEIGHTS = "weights.safetensors"


def save_language_model(model: LanguageModel, folder: Path | str) -> None:
    """Writes ``model.json`` and ``weights.safetensors``; shared weights once.

    Raises:
        StudyError: If the folder cannot be written.
    """
    from safetensors.torch import save_model

    folder = Path(folder)
    write_json(folder / SPEC, LanguageModelSpec.SCHEMA, json.loads(model.spec.to_json()))
    try:
        save_model(model, str(folder / WEIGHTS))
    except OSError as error:
        raise StudyError(f"cannot write {folder / WEIGHTS}: {error.strerror or error}") from error


def load_language_model(folder: Path | str) -> LanguageModel:
    """The model of a folder, in evaluation mode, on the CPU.

    Raises:
        SchemaError: If ``model.json`` or the weights are missing, damaged or do not fit together.
        SpaceError: If it has mixers that do not exist here.
    """
    import torch
    from safetensors.torch import load_model

    from .model import LanguageModel

    folder = Path(folder)
    data = {SCHEMA_KEY: LanguageModelSpec.SCHEMA, **read_json(folder / SPEC, LanguageModelSpec.SCHEMA)}
    with torch.random.fork_rng(devices=[]):
        model = LanguageModel(LanguageModelSpec.from_dict(data))
    try:
        load_model(model, folder / WEIGHTS, strict=True)
    except Exception as error:  # safetensors raises its own, the file system and torch theirs
        raise SchemaError(f"cannot load {folder / WEIGHTS}: {(str(error).splitlines() or [''])[0]}") from error
    return model.eval()
