"""ONNX files as torch programs (``.pt2``), in which torch-based converters take them in processes of their own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import cast

import numpy as np

from ..errors import MeasurementError
from ..search_spaces import Graph
from .answers import Array, random_input


def write_program(graph: Graph, path: Path) -> Path:
    """Writes the graph's ONNX file as a torch program for the shapes of its inputs.

    Raises:
        MeasurementError: If the file is not ONNX, or holds what is not known, see :mod:`.onnx_module`.
    """
    import torch

    from .onnx_module import OnnxModule

    module = OnnxModule(cast(Path, graph.onnx_path)).eval()
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


def write_samples(graph: Graph, samples: list[dict[str, Array]], path: Path) -> Path:
    """Writes inputs as npz, ``input0``, ``input1``, ... in the graph's order, each ``(N, *shape)``."""
    stacked = {f"input{i}": np.stack([sample[spec.name] for sample in samples]) for i, spec in enumerate(graph.inputs)}
    np.savez(path, **stacked)  # type: ignore[arg-type]
    return path
