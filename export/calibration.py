"""Ranges of a network's activations on representative inputs: what static quantisation needs to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import ExportError
from .onnx_export import first_line

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Array: TypeAlias = npt.NDArray[Any]
Range: TypeAlias = tuple[float, float]

LEAST_OPSET = 13
"""Of ONNX: the first whose QuantizeLinear takes a scale for each channel."""


def prepared(path: Path, folder: Path) -> ModelProto:
    """An ONNX file ready to be rewritten: constants folded, batch norm in the weights, shapes inferred.

    That is ONNX Runtime's ``basic`` level, which leaves standard operators only.

    Args:
        path: The file.
        folder: For a temporary file.

    Raises:
        ExportError: If the file does not load.
    """
    import onnx
    import onnxruntime

    options = _options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    target = folder / "prepared.onnx"
    options.optimized_model_filepath = str(target)
    try:
        source = _recent(onnx.load(path))
        onnxruntime.InferenceSession(source.SerializeToString(), options, providers=["CPUExecutionProvider"])
        model = onnx.shape_inference.infer_shapes(onnx.load(target))
    except Exception as error:  # onnxruntime and protobuf raise their own, without a common base
        raise ExportError(f"cannot prepare {path.name} for quantisation: {first_line(error)}") from error
    finally:
        target.unlink(missing_ok=True)
    del model.metadata_props[:]
    model.metadata_props.extend(source.metadata_props)
    used = {node.domain for node in model.graph.node} | {""}
    domains = [entry for entry in model.opset_import if entry.domain in used]  # the rest are ONNX Runtime's own
    del model.opset_import[:]
    model.opset_import.extend(domains)
    _name_nodes(model)
    _pool_globally(model)
    return model


def _recent(model: ModelProto) -> ModelProto:
    """The model in an operator set that has scales by channel."""
    from onnx import version_converter

    version = next(entry.version for entry in model.opset_import if not entry.domain)
    return model if version >= LEAST_OPSET else version_converter.convert_version(model, LEAST_OPSET)


def _name_nodes(model: ModelProto) -> None:
    """Gives each node a name of its own: the output's where it has none, or another's."""
    names: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in names:
            node.name = node.output[0]
        names.add(node.name)


def _pool_globally(model: ModelProto) -> None:
    """Writes means over height and width as GlobalAveragePool, which has an integer kernel."""
    from onnx import helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.value_info}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        keeps = _mean_over_positions(node, constants) if ranks.get(node.input[0] if node.input else "") == 4 else None
        if keeps is None:
            model.graph.node.append(node)
            continue
        pooled = node.output[0] if keeps else f"{node.output[0]}_pooled"
        model.graph.node.append(helper.make_node("GlobalAveragePool", node.input[:1], [pooled], name=node.name))
        if not keeps:
            model.graph.node.append(
                helper.make_node("Flatten", [pooled], node.output, name=f"{node.name}_flat", axis=1)
            )


def _mean_over_positions(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool | None:
    """Whether a mean over height and width of ``(N, C, H, W)`` keeps these axes; None for other nodes."""
    from onnx import numpy_helper

    if node.op_type != "ReduceMean":
        return None
    attributes = {attribute.name: attribute for attribute in node.attribute}
    axes = list(attributes["axes"].ints) if "axes" in attributes else []
    if len(node.input) > 1 and node.input[1] in constants:
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
    if sorted(axis % 4 for axis in axes) != [2, 3]:
        return None
    return "keepdims" not in attributes or attributes["keepdims"].i == 1


def activation_ranges(
    model: ModelProto, tensors: Sequence[str], inputs: Iterable[Mapping[str, Array]]
) -> dict[str, Range]:
    """Smallest and largest value of each tensor over all inputs.

    Args:
        model: The network.
        tensors: Names of values within it, inputs of the network included.
        inputs: Representative inputs by name.

    Raises:
        ExportError: If the network does not run on an input, a value is not finite, or there is no input.
    """
    import onnxruntime

    own = {value.name for value in model.graph.input}
    inner = [name for name in tensors if name not in own]
    try:
        session = onnxruntime.InferenceSession(
            _with_outputs(model, inner), _options(plain=True), providers=["CPUExecutionProvider"]
        )
        low = dict.fromkeys(tensors, np.inf)
        high = dict.fromkeys(tensors, -np.inf)
        for feeds in inputs:
            found = dict(zip(inner, session.run(inner, dict(feeds)), strict=True)) if inner else {}
            for name in tensors:
                array = found[name] if name in found else feeds[name]
                low[name] = min(low[name], float(array.min()))
                high[name] = max(high[name], float(array.max()))
    except Exception as error:  # as above
        raise ExportError(f"the network does not run on the calibration data: {first_line(error)}") from error
    wrong = [name for name in tensors if not np.isfinite([low[name], high[name]]).all()]
    if wrong:
        raise ExportError(
            "no finite range", field="calibration", value=wrong[:3], allowed="at least one input, finite everywhere"
        )
    return {name: (low[name], high[name]) for name in tensors}


def _with_outputs(model: ModelProto, tensors: Sequence[str]) -> bytes:
    """The model with ``tensors`` as outputs, besides its own."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    there = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in there)
    return bytes(copy.SerializeToString())


def _options(*, plain: bool = False) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options
