"""Anybody's ONNX file as a deployable: ``gnomon measure model=model.onnx``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ExportError
from ..search_spaces import Deployable, Graph, TensorSpec, Workload


def deployable_from_onnx(
    path: str | Path, *, batch: int | None = None, sizes: Mapping[str, int] | None = None, name: str | None = None
) -> Deployable:
    """The deployable of one ONNX file, with one graph ``main`` called once.

    Args:
        path: The file.
        batch: Size of a symbolic first axis of each input; 1 by default. A file with a fixed batch
            takes that one only.
        sizes: Sizes of the other symbolic axes, by their name in the file.
        name: Name of the deployable; the file's name by default.

    Raises:
        ConfigError: If the file is missing, an axis has no size, or the batch is fixed to another.
        ExportError: If it is not an ONNX model.
    """
    path = Path(path)
    if batch is not None and batch < 1:
        raise ConfigError("must be positive", field="batch", value=batch)
    graph = _read_graph(path)
    stored = {initializer.name for initializer in graph.initializer}  # old files list weights as inputs, too
    inputs = tuple(_tensor(value, batch, sizes or {}) for value in graph.input if value.name not in stored)
    first = inputs[0].shape if inputs else ()
    workload = Workload(first[1:], batch=first[0] if first else 1)
    outputs = tuple(value.name for value in graph.output)
    return Deployable(name or path.name, workload, {"main": Graph(inputs, outputs, onnx_path=path)})


def _read_graph(path: Path) -> Any:
    import onnx

    if not path.is_file():
        raise ConfigError("no such file", field="model", value=str(path), allowed="an ONNX file")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own error type differs between its implementations
        raise ExportError("not an ONNX model", field="model", value=str(path)) from error
    if not model.graph.output:
        raise ExportError("not an ONNX model: it has no outputs", field="model", value=str(path))
    return model.graph


def _tensor(value: Any, batch: int | None, sizes: Mapping[str, int]) -> TensorSpec:
    from onnx import helper

    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise ConfigError("only tensors of a known rank can be measured", field="input", value=value.name)
    shape, dynamic = [], {}
    for axis, dimension in enumerate(tensor.shape.dim):
        fixed = dimension.HasField("dim_value") and dimension.dim_value > 0
        if not fixed:
            dynamic[axis] = dimension.dim_param or f"{value.name}_{axis}"
        shape.append(dimension.dim_value if fixed else _size(value.name, axis, dynamic[axis], batch, sizes))
    if batch is not None and shape and 0 not in dynamic and shape[0] != batch:
        raise ConfigError(f"input {value.name!r} has a fixed batch", field="batch", value=batch, allowed=str(shape[0]))
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(value.name, tuple(shape), dtype, dynamic)


def _size(name: str, axis: int, symbol: str, batch: int | None, sizes: Mapping[str, int]) -> int:
    if symbol in sizes:
        return int(sizes[symbol])
    if axis == 0:
        return batch or 1
    raise ConfigError(
        f"axis {axis} of input {name!r} has no size in the file",
        field="sizes",
        value=dict(sizes),
        allowed=f"a size for {symbol!r}",
        hint=f"For example +sizes.{symbol}=32.",
    )
