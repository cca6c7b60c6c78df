"""Writes ONNX files of common convolutional networks without torch's exporter, many times as fast.

Measuring a new architecture is mostly export. What a latency is measured on need not have gone through
the general exporter, only be the same graph: the module is run and its ATen operators are recorded
(:mod:`.direct_tape`), each is written as the node that the exporter writes, with batch norm folded into
convolutions (:mod:`.direct_operators`). Tests hold the operators, and those that ONNX Runtime makes of them,
against the exporter's for every space. What is not known is left to the exporter, never approximated.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..search_spaces import TensorSpec
from .direct_graph import Shape
from .direct_language import is_language_graph, language_to_onnx
from .direct_operators import Translator
from .direct_tape import NotDirectError, Recording, record
from .direct_transformer import is_transformer_graph, transformer_to_onnx
from .onnx_export import DEFAULT_OPSET, check_interface, to_onnx

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

EXPORTER = "exporter"
"""Metadata key: ``gnomon.export.direct``, or ``torch.onnx`` and why."""

_log = logging.getLogger(__name__)


def to_onnx_quickly(
    module: nn.Module,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[str, ...],
    *,
    metadata: Mapping[str, str] | None = None,
    opset: int = DEFAULT_OPSET,
    name: str = "the model",
) -> ModelProto:
    """:func:`to_onnx_directly` where that is possible, else torch's exporter.

    The file says who wrote it, and why it was torch's exporter, under the key :data:`EXPORTER`.

    Raises:
        ExportError: If torch's exporter cannot write it either.
    """
    metadata = dict(metadata or {})
    try:
        if opset != DEFAULT_OPSET:
            raise NotDirectError(f"opset {opset}")
        if is_transformer_graph(module):
            written = {**metadata, EXPORTER: __name__}
            return transformer_to_onnx(module, inputs, outputs, metadata=written, name=name)
        if is_language_graph(module):
            written = {**metadata, EXPORTER: __name__}
            return language_to_onnx(module, inputs, outputs, metadata=written, name=name)
        return to_onnx_directly(module, inputs, outputs, metadata={**metadata, EXPORTER: __name__}, name=name)
    except NotDirectError as reason:
        _log.info("%s goes through torch's exporter: %s", name, reason)
        metadata[EXPORTER] = f"torch.onnx: {reason}"
    return to_onnx(module, inputs, outputs, metadata=metadata, opset=opset, name=name)


def to_onnx_directly(
    module: nn.Module,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[str, ...],
    *,
    metadata: Mapping[str, str] | None = None,
    name: str = "the model",
) -> ModelProto:
    """The ONNX form of a torch module, like :func:`~gnomon.export.onnx_export.to_onnx`.

    Args:
        module: Run twice in evaluation mode, on inputs of batch 1 and 2; left as it was.
        inputs, outputs: The graph's interface.
        metadata: Text stored in the file.
        name: For messages.

    Raises:
        NotDirectError: If something in it is not known here.
        ExportError: If the module does not have this interface.
    """
    recording = _recorded(module, inputs)
    if len(recording.tapes[0].outputs) != len(outputs):
        raise NotDirectError(f"it has {len(recording.tapes[0].outputs)} outputs")
    weights = {id(tensor): key for key, tensor in (*module.named_parameters(), *module.named_buffers())}
    translator = Translator(recording, [spec.name for spec in inputs], weights)
    for output in outputs:
        translator.graph.reserve(output)
    translator.run()
    made = recording.tapes[0].outputs
    for index in made:
        if recording.is_constant(index) or index not in translator.names:
            raise NotDirectError("an output does not depend on the input")
    shapes: dict[str, Shape] = {
        value: _shape(recording, index) for index, value in translator.names.items() if index >= len(inputs)
    }
    named = [
        (translator.names[index], output, _shape(recording, index)) for index, output in zip(made, outputs, strict=True)
    ]
    proto = translator.graph.model(inputs, named, shapes, DEFAULT_OPSET)
    for key, text in sorted((metadata or {}).items()):
        proto.metadata_props.add(key=key, value=text)
    check_interface(proto, inputs, outputs, name)
    return proto


def _recorded(module: nn.Module, inputs: tuple[TensorSpec, ...]) -> Recording:
    if any(spec.dtype != "float32" for spec in inputs):
        raise NotDirectError("it takes something other than float32")
    try:
        return record(module, inputs)
    except NotDirectError:
        raise
    except Exception as error:  # whatever the module raises: the exporter then says what is wrong
        raise NotDirectError(f"it does not run at batch 1 and 2: {type(error).__name__}") from error


def _shape(recording: Recording, index: int) -> Shape:
    """With the name of the dynamic axis where a length follows one, None where it varies otherwise."""
    symbols = {tuple(sizes[name] for sizes in recording.sizes): name for name in recording.sizes[0]}
    return tuple(
        lengths[0] if len(set(lengths)) == 1 else symbols.get(lengths)
        for lengths in zip(*recording.shapes(index), strict=True)
    )
