"""Checks that an ONNX file is valid and answers like the torch module it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ExportError
from ..search_spaces import Deployable, Graph, TensorSpec
from .onnx_export import evaluation_mode, example_inputs, first_line

if TYPE_CHECKING:
    import torch
    from torch import nn

DEFAULT_TOLERANCE = 1e-4
RELATIVE_TOLERANCE = 1e-5
"""Added to the tolerance, times the largest output: about what float32 sums of different order
leave, and little beside the absolute tolerance for outputs of ordinary size."""


def check_onnx(
    path: Path,
    module: nn.Module,
    specs: tuple[TensorSpec, ...],
    *,
    batches: Sequence[int] = (1, 3),
    tolerance: float = DEFAULT_TOLERANCE,
    seed: int = 0,
    given: Mapping[int, Mapping[str, torch.Tensor]] | None = None,
) -> float:
    """Runs ``path`` in a fresh ONNX Runtime session (CPU) beside ``module`` in evaluation mode.

    Two sizes, because an exporter can fix a length without a word: inputs are random, at each of
    ``batches``; other dynamic axes grow with the batch by as much. Inputs without dynamic axes are
    run once, at their stated shape.

    Args:
        path: The ONNX file.
        module: The torch module; left in the mode it came in.
        specs: Inputs of the graph, in order.
        batches: Batch sizes to try.
        tolerance: Largest absolute difference of any output element that is accepted; where
            outputs are large, 1e-5 of the largest is allowed beside it.
        seed: Of the random inputs.
        given: By size, inputs by name that are not random.

    Returns:
        The largest absolute difference of any output element.

    Raises:
        ExportError: If the file is not valid, does not run, or differs by more than that.
    """
    session = open_session(path)
    varies = any(spec.dynamic_axes for spec in specs)
    worst = 0.0
    for batch in batches if varies else (1,):
        sizes = _axis_sizes(specs, batch, min(batches)) if varies else {}
        inputs = example_inputs(specs, module, sizes, seed + batch)
        known = (given or {}).get(batch, {})
        inputs = tuple(known.get(spec.name, tensor) for spec, tensor in zip(specs, inputs, strict=True))
        error, largest = _difference(session, path.name, module, specs, inputs)
        # "not <=" instead of ">", so that NaN fails too.
        if not error <= tolerance + RELATIVE_TOLERANCE * largest:
            raise ExportError(
                f"{path.name} does not answer like the torch module: outputs differ by up to {error:.3g}"
                f" (largest output {largest:.3g})",
                field="tolerance",
                value=tolerance,
                hint="Look for operations whose ONNX form is less exact, or allow more.",
            )
        worst = max(worst, error)
    return worst


def check_exported(
    exported: Deployable,
    modules: Mapping[str, nn.Module],
    *,
    batches: Sequence[int] = (1, 3),
    tolerance: float = DEFAULT_TOLERANCE,
    feeds: Mapping[str, Mapping[str, str]] | None = None,
) -> float:
    """:func:`check_onnx` of every graph that came from ``modules``; the largest difference.

    Args:
        exported: With files.
        modules: By graph name.
        batches, tolerance: See :func:`check_onnx`.
        feeds: By graph, which of its outputs is which input of graphs after it. Such inputs are what the module gave
            for random inputs of its own, instead of random: states that no sequence leads to may be no states.
    """
    worst = 0.0
    given: dict[int, dict[str, torch.Tensor]] = {batch: {} for batch in batches}
    for name, module in modules.items():
        graph = exported.graphs[name]
        if graph.onnx_path is None:
            raise ExportError("this graph was not exported", field="graph", value=name)
        error = check_onnx(graph.onnx_path, module, graph.inputs, batches=batches, tolerance=tolerance, given=given)
        worst = max(worst, error)
        for batch in batches if feeds else ():
            made = _fed(graph, module, batch, min(batches), (feeds or {}).get(name, {}))
            given[batch] |= {target: tensor for target, tensor in made.items() if target not in given[batch]}
    return worst


def _fed(
    graph: Graph, module: nn.Module, batch: int, smallest: int, feeds: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """Inputs of graphs that follow, from a module's answers to random inputs."""
    if not feeds:
        return {}
    inputs = example_inputs(graph.inputs, module, _axis_sizes(graph.inputs, batch, smallest), batch)
    with evaluation_mode(module):
        made = dict(zip(graph.outputs, module(*inputs), strict=True))
    return {target: made[output] for output, target in feeds.items()}


def open_session(path: Path, *, threads: int = 1) -> Any:
    """A fresh ONNX Runtime session on the CPU, single-threaded unless told, after onnx.checker.

    Raises:
        ExportError: If the file is missing, not valid, or ONNX Runtime refuses it.
    """
    import onnx
    import onnxruntime

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise ExportError(f"{path} is not a valid ONNX file: {first_line(error)}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        raise ExportError(f"ONNX Runtime cannot load {path}: {first_line(error)}") from error


def _axis_sizes(specs: tuple[TensorSpec, ...], batch: int, smallest: int) -> dict[str, int]:
    """Lengths of dynamic axes by name: the first axis of a tensor is its batch."""
    sizes = {}
    for spec in specs:
        for axis, name in spec.dynamic_axes.items():
            sizes[name] = batch if axis == 0 else spec.shape[axis] + batch - smallest
    return sizes


def _difference(
    session: Any, name: str, module: nn.Module, specs: tuple[TensorSpec, ...], inputs: tuple[torch.Tensor, ...]
) -> tuple[float, float]:
    """Largest absolute difference, and largest absolute torch output."""
    expected = _torch_outputs(module, inputs)
    feeds = {spec.name: tensor.cpu().numpy() for spec, tensor in zip(specs, inputs, strict=True)}
    try:
        found = session.run(None, feeds)
    except Exception as error:  # as above
        shapes = {key: value.shape for key, value in feeds.items()}
        raise ExportError(f"ONNX Runtime cannot run {name} on {shapes}: {first_line(error)}") from error
    if [array.shape for array in found] != [array.shape for array in expected]:
        raise ExportError(
            f"{name} gives other shapes than the torch module",
            field="outputs",
            value=[array.shape for array in found],
            allowed=str([array.shape for array in expected]),
        )
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(found, expected, strict=True)]
    # np.max and not max(): NaN must win.
    difference = np.max([np.abs(a - b).max(initial=0.0) for a, b in pairs])
    return float(difference), float(np.max([np.abs(b).max(initial=0.0) for _, b in pairs]))


def _torch_outputs(module: nn.Module, inputs: tuple[Any, ...]) -> list[np.ndarray[Any, np.dtype[Any]]]:
    import torch

    with evaluation_mode(module):
        outputs = module(*inputs)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
    return [tensor.cpu().numpy() for tensor in outputs]
