"""Writes the graphs of a deployable as ONNX files, through torch's dynamo exporter.

Heavy libraries are imported at first use: a device imports this room, the command line a device.
"""

from __future__ import annotations

import gc
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExportError
from ..schema import write_bytes
from ..search_spaces import Deployable, Graph, TensorSpec

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto
    from torch import nn

DEFAULT_OPSET = 20
SETTLING_BATCH = 4
"""Images from which an untrained network's batch norm takes its statistics."""

MAX_BYTES = 2**31 - 1
"""Protobuf's limit for one file."""


def export_deployable(
    deployable: Deployable,
    folder: Path,
    *,
    modules: Mapping[str, nn.Module] | None = None,
    metadata: Mapping[str, str] | None = None,
    opset: int = DEFAULT_OPSET,
    direct: bool = False,
) -> Deployable:
    """Exports every graph of ``deployable`` that is still a torch module.

    Graphs that are ONNX files already are kept as they are. Modules are exported in evaluation
    mode and left in the mode they came in. A fresh module is initialised under seed 0, so that the
    same architecture gives the same file; torch's global random state is not touched.

    Args:
        deployable: What to export.
        folder: Gets ``model.onnx`` for the graph ``main``, ``<graph>.onnx`` for others, each
            written atomically.
        modules: Trained modules by graph name; for the others the graph's factory is called.
        metadata: Text stored in each file, see :func:`gnomon.export.read_metadata`.
        opset: Version of the ONNX operator set.
        direct: Write what :mod:`.direct` knows without torch's exporter, in a small part of its time,
            and leave only the rest to it. The files' metadata say who wrote them (``exporter``).

    Returns:
        The same deployable with ``onnx_path`` for each graph.

    Raises:
        ExportError: If a graph cannot be exported; one line with the cause.
        StudyError: If the folder cannot be written.
    """
    modules = dict(modules or {})
    unknown = sorted(set(modules) - set(deployable.graphs))
    if unknown:
        raise ExportError(
            "no such graph in this deployable", field="modules", value=unknown, allowed=sorted(deployable.graphs)
        )
    exported = {
        name: graph
        if graph.onnx_path is not None and name not in modules
        else _export_graph(graph, modules.get(name), folder / file_name(name), metadata or {}, opset, direct)
        for name, graph in deployable.graphs.items()
    }
    return Deployable(deployable.name, deployable.workload, exported, deployable.plan, deployable.architecture)


def file_name(graph: str) -> str:
    """``model.onnx`` for ``main``, ``<graph>.onnx`` for others."""
    return "model.onnx" if graph == "main" else f"{graph}.onnx"


def _export_graph(
    graph: Graph, module: nn.Module | None, path: Path, metadata: Mapping[str, str], opset: int, direct: bool
) -> Graph:
    if module is None:
        module = fresh_module(graph, path.name)
    if direct:
        from .direct import to_onnx_quickly

        proto = to_onnx_quickly(module, graph.inputs, graph.outputs, metadata=metadata, opset=opset, name=path.name)
    else:
        proto = to_onnx(module, graph.inputs, graph.outputs, metadata=metadata, opset=opset, name=path.name)
    size = proto.ByteSize()
    if size > MAX_BYTES:
        raise ExportError(f"{path.name} would be {size / 2**30:.1f} GiB", allowed="up to 2 GiB in one ONNX file")
    write_bytes(path, proto.SerializeToString(deterministic=True))
    return Graph(graph.inputs, graph.outputs, onnx_path=path)


def fresh_module(graph: Graph, name: str = "the graph") -> nn.Module:
    """The graph's torch module with its weights initialised under seed 0, and batch norm settled
    (:func:`settle_batch_norm`): left alone, untrained deep networks answer next to nothing, so that
    comparing their answers would prove nothing.

    Raises:
        ExportError: If the graph has no module.
    """
    import torch

    if graph.module is None:
        raise ExportError(f"{name} has neither a torch module nor an ONNX file")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = graph.module()
    settle_batch_norm(module, graph.inputs)
    return module


def settle_batch_norm(module: nn.Module, inputs: tuple[TensorSpec, ...]) -> None:
    """Sets running means and variances to those of a few random inputs, in place; modes are kept.

    Modules without batch norm, or without a batch axis that may vary, are left as they are.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    if not norms or any(0 not in spec.dynamic_axes for spec in inputs):
        return
    sizes = {spec.dynamic_axes[0]: SETTLING_BATCH for spec in inputs}
    momenta = [part.momentum for part in norms]
    with evaluation_mode(module), torch.no_grad():
        for part in norms:
            part.train()
            part.momentum = 1.0
        module(*example_inputs(inputs, module, sizes))
    for part, momentum in zip(norms, momenta, strict=True):
        part.momentum = momentum


def to_onnx(
    module: nn.Module,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[str, ...],
    *,
    metadata: Mapping[str, str] | None = None,
    opset: int = DEFAULT_OPSET,
    name: str = "the model",
    keep_inputs: bool = True,
) -> ModelProto:
    """The ONNX form of a torch module, optimised (batch-norm folded), without traces of the machine.

    torch leaves stack traces and local paths in every node; they are removed, so that the file
    tells nothing of where it was made and equal modules give equal bytes. Inputs that the module does not use may
    be missing from the graph; that is an error unless ``keep_inputs`` is False.

    Raises:
        ExportError: One line with the cause, also if an axis that should vary was fixed.
    """
    import torch

    try:
        with evaluation_mode(module), _quiet(), _without_garbage_collection():
            program = torch.onnx.export(
                module,
                example_inputs(inputs, module),
                dynamo=True,
                input_names=[spec.name for spec in inputs],
                output_names=list(outputs),
                dynamic_shapes=_dynamic_shapes(inputs, module),
                opset_version=opset,
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever its many passes raise
        raise ExportError(f"cannot export {name}: {first_line(error)}") from error
    if program is None:
        raise ExportError(f"cannot export {name}: torch returned nothing")
    proto = _anonymous(program)
    for key, value in sorted((metadata or {}).items()):
        proto.metadata_props.add(key=key, value=value)
    found_names = {value.name for value in proto.graph.input}
    expected = inputs if keep_inputs else tuple(spec for spec in inputs if spec.name in found_names)
    check_interface(proto, expected, outputs, name)
    found = next((o.version for o in proto.opset_import if not o.domain), None)
    if found != opset:
        raise ExportError(f"torch wrote {name} with opset {found}", field="opset", value=opset, allowed=f"{found}")
    return proto


def _anonymous(program: torch.onnx.ONNXProgram) -> ModelProto:
    """Without the stack traces, module paths and notes that torch leaves in nodes and values."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(program.model)
    proto: ModelProto = program.model_proto
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        value.ClearField("metadata_props")
    return proto


def example_inputs(
    inputs: tuple[TensorSpec, ...], module: nn.Module, sizes: Mapping[str, int] | None = None, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    """Random inputs on the module's device, axes named in ``sizes`` at that length.

    Other dynamic axes are at least 2 long: torch.export takes a length of 1 for a constant.
    Integer inputs are 0 or 1, valid for any vocabulary or flag. Inputs with a constant are that.
    """
    import torch

    sizes = sizes or {}
    parameter = next(module.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for spec in inputs:
        dtype = getattr(torch, spec.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise ExportError("unknown dtype", field=f"inputs.{spec.name}.dtype", value=spec.dtype, allowed="numpy's")
        shape = [
            sizes.get(spec.dynamic_axes[axis], max(length, 2)) if axis in spec.dynamic_axes else length
            for axis, length in enumerate(spec.shape)
        ]
        if spec.constant is not None:
            tensor = torch.full(shape, spec.constant, dtype=dtype)
        elif dtype.is_floating_point:
            tensor = torch.randn(shape, generator=generator).to(dtype)
        else:
            tensor = torch.randint(0, 2, shape, generator=generator).to(dtype)
        tensors.append(tensor.to(device))
    return tuple(tensors)


def _dynamic_shapes(inputs: tuple[TensorSpec, ...], module: nn.Module) -> tuple[object, ...]:
    """One entry an argument of the module's forward; those that ``*args`` takes are one entry together."""
    from torch.export import Dim

    dims = {name: Dim(name) for spec in inputs for name in spec.dynamic_axes.values()}
    shapes = [{axis: dims[name] for axis, name in spec.dynamic_axes.items()} for spec in inputs]
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    rest = tuple(shapes[first:])
    return (*shapes[:first], rest) if rest else tuple(shapes)


def check_interface(proto: ModelProto, inputs: tuple[TensorSpec, ...], outputs: tuple[str, ...], name: str) -> None:
    """torch may fix an axis or drop an unused input without a word."""
    found = [value.name for value in proto.graph.input]
    if found != [spec.name for spec in inputs]:
        raise ExportError(
            f"{name} lost inputs on export", field="inputs", value=found, allowed=[s.name for s in inputs]
        )
    found = [value.name for value in proto.graph.output]
    if found != list(outputs):
        raise ExportError(f"{name} has other outputs than stated", field="outputs", value=found, allowed=list(outputs))
    for value, spec in zip(proto.graph.input, inputs, strict=True):
        dims = value.type.tensor_type.shape.dim
        fixed = [axis for axis in spec.dynamic_axes if not dims[axis].dim_param]
        if fixed:
            raise ExportError(
                f"{name}: axis {fixed[0]} of input {spec.name} was fixed at {dims[fixed[0]].dim_value} on export",
                hint="The module's forward depends on that length; use the tensor's shape instead of numbers.",
            )


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every sub-module is put back as it was."""
    import torch

    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's notes on absent libraries, coming deprecations and, when it fails, its
    dumps of whole graphs off the terminal."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """The exporter makes many small objects beside torch's many: collecting takes 12 % of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def first_line(error: BaseException) -> str:
    """The first line of what went wrong at the bottom: torch wraps it in pages of report."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
