"""A model's folder: everything to run, judge, rebuild and retrain one trained architecture.

``model.onnx``, ``weights.safetensors``, ``architecture.json``, ``config.yaml``, ``card.json`` and,
written last, ``card.md``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExportError, SchemaError, StudyError
from ..schema import read_json, write_json, write_text
from ..search_spaces import Architecture, Deployable, Graph, space_from_spec
from .card import CARD_MARKDOWN, ModelCard, write_card
from .check import DEFAULT_TOLERANCE, check_exported
from .onnx_export import DEFAULT_OPSET, export_deployable, first_line

if TYPE_CHECKING:
    from torch import nn

ARCHITECTURE = "architecture.json"
WEIGHTS = "weights.safetensors"
CONFIG = "config.yaml"


@dataclass(frozen=True)
class ExportedModel:
    """A finished model folder.

    Args:
        folder: Where it is.
        deployable: Its graphs are the ONNX files there: what is measured is what ships.
        card: As written, interface and error filled in.
        files: Names of all files in the folder.
    """

    folder: Path
    deployable: Deployable
    card: ModelCard
    files: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The model as a task scores it: its one file, or its folder where it has several graphs."""
        (*others, last) = self.deployable.graphs.values()
        return self.folder if others or last.onnx_path is None else last.onnx_path

    @property
    def max_abs_error(self) -> float:
        """Largest difference between ONNX Runtime's and torch's outputs."""
        return float(self.card.max_abs_error or 0.0)


def export_model(
    deployable: Deployable,
    module: nn.Module,
    folder: Path,
    card: ModelCard,
    *,
    config: str = "",
    modules: Mapping[str, nn.Module] | None = None,
    assets: Mapping[str, str] | None = None,
    opset: int = DEFAULT_OPSET,
    tolerance: float = DEFAULT_TOLERANCE,
) -> ExportedModel:
    """Exports a trained model, checks the files against torch, and fills its folder.

    All is made and checked in a hidden folder within ``folder`` and then moved up, file by file, the
    card last: a folder with a ``card.md`` is complete. An older export there is replaced.

    Args:
        deployable: As the space makes it; its architecture goes into the folder.
        module: The trained module; its weights are stored.
        folder: The model's folder, made if needed.
        card: What is known so far; write it again with :func:`write_card` when more is.
        config: Resolved configuration of the study as YAML, for training again.
        modules: Modules by graph name where there are several; default ``module`` for ``main``.
        assets: Texts that whoever uses the model needs besides, such as a tokenizer, by file name.
        opset: Of the ONNX files.
        tolerance: Largest accepted difference between ONNX Runtime's and torch's outputs.

    Raises:
        ExportError: If export or check fails; ``folder`` is as before.
        StudyError: If the folder cannot be written.
    """
    modules = {"main": module} if modules is None else dict(modules)
    uncovered = sorted(set(deployable.graphs) - set(modules))
    if uncovered:
        raise ExportError("these graphs have no trained module", field="modules", value=uncovered)
    with _staged(folder) as stage:
        exported = export_deployable(deployable, stage, modules=modules, metadata=card.metadata.props(), opset=opset)
        feeds = card.metadata.interface.get("feeds")
        error = check_exported(exported, modules, tolerance=tolerance, feeds=feeds)
        _save_weights(module, stage / WEIGHTS)
        if deployable.architecture is not None:
            write_json(stage / ARCHITECTURE, Architecture.SCHEMA, deployable.architecture.to_dict())
        if config:
            write_text(stage / CONFIG, config)
        for name, text in (assets or {}).items():
            write_text(stage / name, text)
        card = _completed(card, exported, opset=opset, max_abs_error=error, has_config=bool(config))
        write_card(stage, card)
        files = tuple(sorted(path.name for path in stage.iterdir()))
    graphs = {name: _moved(graph, folder) for name, graph in exported.graphs.items()}
    return ExportedModel(folder, replace(exported, graphs=graphs), card, files)


def load_architecture(folder: Path | str) -> Architecture:
    """The architecture in a model's folder.

    Raises:
        SchemaError: If there is none, or it is damaged or of another schema.
    """
    return Architecture.from_dict(
        {"schema": Architecture.SCHEMA, **read_json(Path(folder) / ARCHITECTURE, Architecture.SCHEMA)}
    )


def build_model(folder: Path | str, *, seed: int = 0) -> nn.Module:
    """The torch module of a model's folder with fresh weights, initialised under ``seed``.

    Raises:
        SchemaError: If ``architecture.json`` is missing or damaged.
        SpaceError: If its space cannot be imported, or does not have this architecture.
    """
    import torch

    architecture = load_architecture(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return space_from_spec(architecture.space).build(architecture.config)


def load_model(folder: Path | str) -> nn.Module:
    """The trained torch module of a model's folder, in evaluation mode, on the CPU.

    Raises:
        SchemaError: If ``architecture.json`` or the weights are missing, damaged or do not fit.
        SpaceError: If its space cannot be imported, or does not have this architecture.
    """
    from safetensors.torch import load_model as load_weights

    module = build_model(folder)
    path = Path(folder) / WEIGHTS
    try:
        load_weights(module, path, strict=True)
    except Exception as error:  # safetensors raises its own, the file system and torch theirs
        raise SchemaError(f"cannot load {path}: {first_line(error)}") from error
    return module.eval()


def _save_weights(module: nn.Module, path: Path) -> None:
    from safetensors.torch import save_model

    try:
        save_model(module, str(path))
        path.chmod(0o644)  # the library makes it private, unlike all the other files
    except Exception as error:  # as above
        raise ExportError(f"cannot save weights: {first_line(error)}") from error


def _completed(
    card: ModelCard, exported: Deployable, *, opset: int, max_abs_error: float, has_config: bool
) -> ModelCard:
    graphs = exported.graphs
    main = graphs.get("main", next(iter(graphs.values())))
    inputs = {
        spec.name: (spec.dtype, tuple(spec.dynamic_axes.get(axis, length) for axis, length in enumerate(spec.shape)))
        for spec in main.inputs
    }
    return replace(
        card,
        inputs=inputs,
        outputs=main.outputs,
        opset=opset,
        max_abs_error=max_abs_error,
        files=tuple(graph.onnx_path.name for graph in graphs.values() if graph.onnx_path is not None),
        has_config=has_config,
        created=card.created or datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _moved(graph: Graph, folder: Path) -> Graph:
    return graph if graph.onnx_path is None else replace(graph, onnx_path=folder / graph.onnx_path.name)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A hidden folder within ``folder`` whose files are moved up at the end, the card last.

    What a killed export left there is cleared by the next one.
    """
    stage = folder / ".partial"
    try:
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        yield stage
        (folder / CARD_MARKDOWN).unlink(missing_ok=True)
        for path in sorted(stage.iterdir(), key=lambda path: path.name == CARD_MARKDOWN):
            os.replace(path, folder / path.name)
    except OSError as error:
        raise StudyError(
            f"cannot write {folder}: {error.strerror or error}", hint="Check permissions and free space."
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()  # only if it is empty: nothing was exported
