"""What a model has to answer: a latency counts only if the runtime computes the model it was given.

A graph's answers to its deterministic random inputs (:func:`random_input`) are
written beside the job; the child compares its own before it times anything. They come from the torch
module where there is one, and else from the ONNX file through ONNX Runtime with its optimisations off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

import numpy as np
import numpy.typing as npt

from ..errors import MeasurementError
from ..search_spaces import Graph

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]

TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 5e-2, "int8": 0.5, "per_layer": 0.5}
"""Accepted relative error (:func:`relative_error`) of each precision. ``int8`` only tells a quantised model
from a wrong one: on random weights and inputs eight bits lose a good part of a deep network's signal."""


class Input(Protocol):
    """What is known of an input: :class:`~gnomon.search_spaces.TensorSpec` and the child's form of it."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def constant(self) -> int | None: ...


def random_input(spec: Input, seed: int = 0) -> Array:
    """An array that depends on the input's name, shape and dtype, and on ``seed``, only; or all its constant.

    Floats are standard normal, integers 0 or 1 (valid as token indices of any vocabulary), booleans true.
    """
    rng = np.random.default_rng((crc32(f"{spec.name}{spec.shape}{spec.dtype}".encode()), seed))
    kind = np.dtype(spec.dtype)
    if spec.constant is not None:
        return np.full(spec.shape, spec.constant, dtype=kind)
    if np.issubdtype(kind, np.floating):
        return rng.standard_normal(spec.shape).astype(kind)
    if np.issubdtype(kind, np.bool_):
        return np.ones(spec.shape, dtype=kind)
    return rng.integers(0, 2, spec.shape).astype(kind)


def write_answers(path: Path, graph: Graph, module: nn.Module | None = None) -> Path:
    """Writes a graph's answers to its random inputs, by output name, as npz.

    Args:
        path: The file to write.
        graph: With an ONNX file where ``module`` is None.
        module: The torch module, in any mode; left in that mode.

    Raises:
        MeasurementError: If the ONNX file does not load or run.
    """
    inputs = [random_input(spec) for spec in graph.inputs]
    outputs = _of_file(graph, inputs) if module is None else _of_module(module, inputs)
    np.savez(path, **dict(zip(graph.outputs, outputs, strict=True)))  # type: ignore[arg-type]
    return path


def read_answers(path: str | Path) -> Mapping[str, Array]:
    """The answers by output name."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def relative_error(found: Array, expected: Array) -> float:
    """Root mean square of the difference over that of the expected; infinite where shapes differ or
    anything is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    scale = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    difference = np.subtract(found, expected, dtype=np.float64)
    return float(np.sqrt(np.mean(np.square(difference)))) / max(scale, 1e-12)


def _of_module(module: nn.Module, inputs: Sequence[Array]) -> list[Array]:
    import torch

    from ..export.onnx_export import evaluation_mode

    with evaluation_mode(module):
        outputs = module(*(torch.from_numpy(array) for array in inputs))
    return [tensor.cpu().numpy() for tensor in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]


def _of_file(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(str(graph.onnx_path), options, providers=["CPUExecutionProvider"])
        feeds = {spec.name: array for spec, array in zip(graph.inputs, inputs, strict=True)}
        return list(session.run(list(graph.outputs), feeds))
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        reason = " ".join(str(error).split())[:200]
        raise MeasurementError(f"its ONNX file does not run: {reason}", field="onnx_path") from error
