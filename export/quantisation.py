"""Static eight-bit quantisation of an ONNX file: calibrate once, write any choice of layers."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ConfigError, ExportError
from ..schema import Record, write_bytes
from .calibration import Array, activation_ranges, prepared
from .onnx_export import first_line
from .qdq import QdqGraph, rewrite

if TYPE_CHECKING:
    from onnx import ModelProto

QUANTISED = ".int8.onnx"
"""Ending of a quantised file beside ``model.onnx``."""


@dataclass(frozen=True)
class Quantisation(Record):
    """How a network gets its eight bits.

    Args:
        per_channel: One scale for each output channel of weights; else one for each tensor, which some
            accelerators require, and which costs quality where channels differ in size.
        weight_bits: 8, or 7 on x86 without VNNI, whose products of eight bits saturate.

    Raises:
        ConfigError: If ``weight_bits`` is another number.
    """

    SCHEMA: ClassVar[str] = "gnomon.quantisation/1"

    per_channel: bool = True
    weight_bits: int = 8

    def __post_init__(self) -> None:
        if self.weight_bits not in (7, 8):
            raise ConfigError("not a number of bits", field="weight_bits", value=self.weight_bits, allowed=(7, 8))


class Quantiser:
    """A calibrated network, written with any of its layers in eight bits.

    Args:
        path: The ONNX file in floats.
        inputs: Representative inputs by name; the more, the better known are the ranges.
        how: Granularity.

    Raises:
        ExportError: If the file does not load or run, or is quantised already.
    """

    def __init__(self, path: Path, inputs: Iterable[Mapping[str, Array]], how: Quantisation | None = None) -> None:
        self.how = how or Quantisation()
        if is_quantised(path):
            raise ExportError("quantised already", field="model", value=str(path))
        with tempfile.TemporaryDirectory(prefix="gnomon-") as folder:
            model = prepared(path, Path(folder))
        self._graph = QdqGraph(model, per_channel=self.how.per_channel, weight_bits=self.how.weight_bits)
        self._ranges = activation_ranges(model, self._graph.tensors(), inputs)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers (convolutions, matrix products with constant weights) in order."""
        return tuple(self._graph.layers)

    def write(self, target: Path, layers: Collection[str] | None = None) -> Path:
        """Writes the network with ``layers`` (all by default) in eight bits.

        What reads only their results, such as a sum, is in eight bits, too.

        Raises:
            ConfigError: If a layer does not exist.
            ExportError: If the file would be too large.
            StudyError: If it cannot be written.
        """
        model = self.model(layers)
        for entry in list(model.metadata_props):
            if entry.key == "gnomon.quantisation":
                model.metadata_props.remove(entry)
        model.metadata_props.add(key="gnomon.quantisation", value=self.how.to_json())
        write_bytes(target, model.SerializeToString(deterministic=True))
        return target

    def model(self, layers: Collection[str] | None = None) -> ModelProto:
        """As :meth:`write`, in memory."""
        chosen = self.layers if layers is None else layers
        unknown = sorted(set(chosen) - set(self.layers))
        if unknown:
            raise ConfigError("no such layer", field="layers", value=unknown[:3], allowed=self.layers)
        return rewrite(self._graph, self._ranges, frozenset(chosen))


def quantise(
    source: Path, target: Path, inputs: Iterable[Mapping[str, Array]], how: Quantisation | None = None
) -> Path:
    """Quantises all layers of an ONNX file statically; see :class:`Quantiser`.

    Raises:
        ExportError: If the file does not load or run.
        StudyError: If ``target`` cannot be written.
    """
    return Quantiser(source, inputs, how).write(target)


def is_quantised(path: Path) -> bool:
    """Whether an ONNX file holds integers already: nodes that quantise, or kernels that work on integers.

    Raises:
        ExportError: If it is no ONNX file.
    """
    import onnx

    try:
        model: Any = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own error type differs between its implementations
        raise ExportError(f"cannot read {path.name}: {first_line(error)}") from error
    kinds = {node.op_type for node in model.graph.node}
    return any(kind.endswith(("QuantizeLinear", "Integer")) or kind.startswith("QLinear") for kind in kinds)
