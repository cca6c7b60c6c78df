"""ONNX files as torch programs (``.pt2``), in which torch-based converters take them in processes of their own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import MeasurementError
from ..search_spaces import Graph
from .answers import TOLERANCES, Array, random_input

if TYPE_CHECKING:
    from .onnx_module import Operator


def write_program(graph: Graph, path: Path, operators: Mapping[str, Operator] | None = None) -> Path:
    """Writes the graph's ONNX file as a torch program for the shapes of its inputs.

    ``operators`` are those of :class:`~gnomon.devices.onnx_module.OnnxModule`.

    Raises:
        MeasurementError: If the file is not ONNX, or holds what is not known, see :mod:`.onnx_module`.
    """
    import torch

    from .onnx_module import OnnxModule

    module = OnnxModule(cast(Path, graph.onnx_path), operators).eval()
    examples = tuple(torch.from_numpy(random_input(spec)) for spec in graph.inputs)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(torch.export.export(module, examples), path)
    except MeasurementError:
        raise
    except Exception as error:  # whatever torch.export's passes raise
        reason = " ".join(str(error).split())[:200]
        raise MeasurementError(f"torch cannot trace its ONNX file: {reason}", field="onnx_path") from error
    return path


def conversion_request(
    graph: Graph,
    folder: Path,
    target: Path,
    samples: Sequence[Mapping[str, Array]] | None,
    operators: Mapping[str, Operator] | None = None,
) -> dict[str, Any]:
    """Writes what a converter's script reads, and gives the request to send to it.

    Args:
        graph: With its ONNX file; the expected answers are in ``folder / "answers.npz"``.
        folder: Gets the program and, to quantise, the inputs.
        target: The file that the converter is to write.
        samples: Calibration inputs by name; None for no quantisation.
        operators: See :class:`~gnomon.devices.onnx_module.OnnxModule`.

    Raises:
        MeasurementError: If the graph cannot become a torch program.
    """
    request: dict[str, Any] = {
        "program": str(write_program(graph, folder / "program.pt2", operators).resolve()),
        "answers": str((folder / "answers.npz").resolve()),
        "outputs": list(graph.outputs),
        "target": str(target.resolve()),
        "tolerance": TOLERANCES["fp32"],
    }
    if samples is not None:
        question = {spec.name: random_input(spec) for spec in graph.inputs}
        request["samples"] = str(_write_inputs(graph, samples, folder / "samples.npz").resolve())
        request["questions"] = str(_write_inputs(graph, [question], folder / "questions.npz").resolve())
    return request


def _write_inputs(graph: Graph, samples: Sequence[Mapping[str, Array]], path: Path) -> Path:
    """npz of ``input0``, ``input1``, ... in the graph's order, each ``(N, *shape)``."""
    stacked = {f"input{i}": np.stack([sample[spec.name] for sample in samples]) for i, spec in enumerate(graph.inputs)}
    np.savez(path, **stacked)  # type: ignore[arg-type]
    return path
