"""Writes the two graphs of a transformer as ONNX without torch's exporter, in milliseconds instead of many seconds.

The nodes are those that the exporter writes (:mod:`.direct` says why that matters); tests hold both against
each other, and what ONNX Runtime makes of them. Shapes as in :mod:`gnomon.search_spaces.hat.layers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ..search_spaces import TensorSpec
from ..search_spaces.sequence import PAD
from .direct_graph import IR_VERSION
from .onnx_export import DEFAULT_OPSET, check_interface

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto
    from torch import nn

    from ..search_spaces.hat.layers import CrossAttention, DecoderLayer, EncoderLayer, SelfAttention
    from ..search_spaces.hat.transformer import Transformer

KeysValues = tuple[str, str]


def is_transformer_graph(module: nn.Module) -> bool:
    """Whether :func:`transformer_to_onnx` knows this module: a graph of a stand-alone transformer."""
    from ..search_spaces.hat.graphs import ReadingGraph, StepGraph
    from ..search_spaces.hat.transformer import Transformer

    return isinstance(module, (ReadingGraph, StepGraph)) and type(module.model) is Transformer


def transformer_to_onnx(
    module: nn.Module,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[str, ...],
    *,
    metadata: Mapping[str, str] | None = None,
    name: str = "the model",
) -> ModelProto:
    """The ONNX form of a graph of :mod:`gnomon.search_spaces.hat.graphs`.

    Args:
        module: One that :func:`is_transformer_graph` knows.
        inputs, outputs: The graph's interface.
        metadata: Text stored in the file.
        name: For messages.

    Raises:
        ExportError: If the module does not have this interface.
    """
    from ..search_spaces.hat.graphs import ReadingGraph

    model = cast("Transformer", module.model)
    graph = _Graph()
    if not isinstance(module, ReadingGraph):
        _step(graph, model, [spec.name for spec in inputs[2:]], outputs)
    elif model.encoder_norm is not None:
        _encoder(graph, model, outputs)
    else:
        _prefill(graph, model, module.beams, outputs)
    proto = graph.model(inputs, outputs)
    for key, text in sorted((metadata or {}).items()):
        proto.metadata_props.add(key=key, value=text)
    check_interface(proto, inputs, outputs, name)
    return proto


class _Graph:
    """Nodes and weights, in order."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._weights: dict[str, npt.NDArray[Any]] = {}
        self._known: dict[Any, str] = {}
        self._kept: list[torch.Tensor] = []  # tensors are told apart by identity, hence must live on

    def node(self, operator: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """Adds a node with one output, by default of a new name; that name. ``to_`` is the attribute ``to``."""
        attributes = {name.removesuffix("_"): value for name, value in attributes.items()}
        return self.nodes(operator, inputs, (to or f"v{len(self._nodes)}",), attributes)[0]

    def nodes(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Mapping[str, Any]
    ) -> Sequence[str]:
        """Adds a node with these outputs."""
        from onnx import helper

        self._nodes.append(helper.make_node(operator, inputs, outputs, name=f"node_{outputs[0]}", **attributes))
        return outputs

    def number(self, value: float | int | Sequence[int]) -> str:
        """A constant: float32 for a float, int64 otherwise."""
        array = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = f"c{len(self._known)}"
            self._weights[self._known[key]] = array
        return self._known[key]

    def weight(self, tensor: torch.Tensor, transposed: bool = False) -> str:
        """A parameter, once however often it is used."""
        key = (id(tensor), transposed)
        if key not in self._known:
            self._kept.append(tensor)
            array = tensor.detach().cpu().numpy()
            self._known[key] = f"w{len(self._known)}"
            self._weights[self._known[key]] = np.ascontiguousarray(array.T if transposed else array)
        return self._known[key]

    def shape(self, *parts: str | int) -> str:
        """A shape made of values ``(1,)`` and lengths."""
        lengths = [part if isinstance(part, str) else self.number([part]) for part in parts]
        key = ("shape", *lengths)
        if key not in self._known:
            self._known[key] = self.node("Concat", *lengths, axis=0)
        return self._known[key]

    def length(self, value: str, axis: int) -> str:
        """A dynamic length ``(1,)``."""
        return self.node("Shape", value, start=axis, end=axis + 1)

    def reshape(self, value: str, shape: str, to: str = "") -> str:
        return self.node("Reshape", value, shape, to=to, allowzero=1)

    def split(self, value: str, parts: int, axis: int) -> Sequence[str]:
        """Equal parts along an axis."""
        names = [f"s{len(self._nodes)}_{part}" for part in range(parts)]
        return self.nodes("Split", (value,), names, {"axis": axis, "num_outputs": parts})

    def norm(self, x: str, layer: nn.LayerNorm) -> str:
        weights = self.weight(layer.weight), self.weight(layer.bias)
        return self.node("LayerNormalization", x, *weights, axis=-1, epsilon=layer.eps, stash_type=1)

    def gemm(self, x: str, layer: nn.Linear) -> str:
        """A linear layer on rows ``(N, in)``."""
        inputs = x, self.weight(layer.weight), self.weight(layer.bias)
        return self.node("Gemm", *inputs, alpha=1.0, beta=1.0, transA=0, transB=1)

    def matmul(self, x: str, layer: nn.Linear) -> str:
        """A linear layer on the last of three dimensions."""
        product = self.node("MatMul", x, self.weight(layer.weight, transposed=True))
        return self.node("Add", product, self.weight(layer.bias))

    def attend(self, queries: str, keys_t: str, values: str, features: int, bias: str | None) -> str:
        scores = self.node("Mul", self.node("MatMul", queries, keys_t), self.number(1.0 / math.sqrt(features)))
        if bias is not None:
            scores = self.node("Add", scores, bias)
        return self.node("MatMul", self.node("Softmax", scores, axis=-1), values)

    def embed(self, model: Transformer, table: nn.Embedding, tokens: str, positions: str, width: int) -> str:
        weight: torch.Tensor = table.weight
        if width != table.embedding_dim:
            rows = self.weight(weight[:, :width])
        else:
            rows = self.weight(weight)
        scaled = self.node("Mul", self.node("Gather", rows, tokens, axis=0), self.number(math.sqrt(width)))
        places = self.weight(getattr(model.tables, f"positions{width}"))
        return self.node("Add", scaled, self.node("Gather", places, positions, axis=0))

    def model(self, inputs: Sequence[TensorSpec], outputs: Sequence[str]) -> ModelProto:
        from onnx import helper, numpy_helper, shape_inference

        made = {
            spec.name: helper.make_tensor_value_info(
                spec.name,
                helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)),
                [spec.dynamic_axes.get(axis, length) for axis, length in enumerate(spec.shape)],
            )
            for spec in inputs
        }
        integers = {"positions", "next_positions"}
        returned = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None)
            for name in outputs
            for kind in ("int64" if name in integers else "float32",)
        ]
        weights = [numpy_helper.from_array(array, name) for name, array in self._weights.items()]
        graph = helper.make_graph(self._nodes, "main_graph", list(made.values()), returned, weights)
        opset = [helper.make_opsetid("", DEFAULT_OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="gnomon")
        # Without the shapes between, ONNX Runtime misses fusions that it finds in the exporter's files.
        return shape_inference.infer_shapes(model, data_prop=True)


# ---- Reading ------------------------------------------------------------------------------------


def _encoder(graph: _Graph, model: Transformer, outputs: Sequence[str]) -> None:
    sentences, length = graph.length("source", 0), graph.length("source", 1)
    bias = _padding_bias(graph)
    x = _embed_source(graph, model, _range(graph, length), model.encoder_width)
    encoded = []
    for part in model.encoder_layers:
        encoding = cast("EncoderLayer", part)
        read = _project(graph, encoding, x, (sentences, length))
        x = _read_ffn(graph, encoding, _read_self(graph, encoding, x, read, bias, (sentences, length)))
        encoded.append(x)
    layers = model.decoder_stack()
    most = max(layer.attended for layer in layers)
    assert model.encoder_norm is not None
    kept = [graph.norm(x, model.encoder_norm) for x in encoded[-most:]]
    caches = outputs[-2 * len(layers) :]
    for index, layer in enumerate(layers):
        memory = kept[-1] if layer.attended == 1 else graph.node("Concat", *kept[-layer.attended :], axis=1)
        rows = length if layer.attended == 1 else graph.length(memory, 1)
        attention = cast("CrossAttention", layer.cross_attention)
        features = attention.qkv_width // attention.heads
        shape = graph.shape(sentences, rows, attention.heads, features)
        keys, values = graph.split(graph.matmul(memory, attention.kv), 2, 2)
        split_keys, split_values = graph.reshape(keys, shape), graph.reshape(values, shape)
        turned = (
            graph.node("Transpose", split_keys, perm=(0, 2, 3, 1)),
            graph.node("Transpose", split_values, perm=(0, 2, 1, 3)),
        )
        for cache, name in zip(turned, caches[2 * index :], strict=False):
            graph.node("Unsqueeze", cache, graph.number([1]), to=name)
    for name in outputs[: -2 * len(layers)]:
        count = int(name.removeprefix("bias"))
        if count == 1:
            graph.node("Unsqueeze", bias, graph.number([1]), to=name)
        else:
            wide = graph.node("Unsqueeze", bias, graph.number([1]))
            graph.node("Concat", *[wide] * count, axis=4, to=name)


def _prefill(graph: _Graph, model: Transformer, beams: int, outputs: Sequence[str]) -> None:
    sentences, length = graph.length("source", 0), graph.length("source", 1)
    hidden = _padding_bias(graph)
    seen = graph.node("Cast", graph.node("Not", graph.node("Equal", "source", graph.number(PAD))), to_=7)
    counted = graph.node("Sub", graph.node("CumSum", seen, graph.number(1)), graph.number(1))
    positions = graph.node("Clip", counted, graph.number(0))
    x = _embed_source(graph, model, positions, model.decoder_width)
    stack = model.decoder_stack()
    bias = graph.node("Add", _causal_bias(graph, length), hidden) if len(stack) > 1 else ""
    for index, layer in enumerate(stack):
        read = _project(graph, layer, x, (sentences, length))
        caches = graph.node("Transpose", read.keys, perm=(0, 2, 1, 3)), read.values
        for cache, name in zip(caches, outputs[2 + 2 * index :], strict=False):
            one = graph.node("Unsqueeze", cache, graph.number([1]))
            graph.node("Expand", one, graph.number([1, beams, 1, 1, 1]), to=name)
        if index + 1 < len(stack):  # nobody reads what the last layer makes of the prompt but its caches
            x = _read_ffn(graph, layer, _read_self(graph, layer, x, read, bias, (sentences, length)))
    graph.node("Unsqueeze", hidden, graph.number([1]), to="hidden")
    total = graph.node("ReduceSum", seen, graph.number([1]), keepdims=1)
    graph.node("Expand", total, graph.number([1, beams]), to="positions")


def _embed_source(graph: _Graph, model: Transformer, positions: str, width: int) -> str:
    table = model.tables.target if model.tables.own_source is None else model.tables.own_source
    return graph.embed(model, table, "source", positions, width)


def _padding_bias(graph: _Graph) -> str:
    from ..search_spaces.hat.layers import MASKED

    padding = graph.node("Cast", graph.node("Equal", "source", graph.number(PAD)), to_=1)
    return graph.node("Mul", graph.node("Unsqueeze", padding, graph.number([1, 2])), graph.number(MASKED))


def _causal_bias(graph: _Graph, length: str) -> str:
    from ..search_spaces.hat.layers import MASKED

    index = graph.node("Range", graph.number(0), graph.node("Squeeze", length), graph.number(1))
    row, column = (graph.node("Unsqueeze", index, graph.number([axis])) for axis in (0, 1))
    return graph.node("Mul", graph.node("Cast", graph.node("Greater", row, column), to_=1), graph.number(MASKED))


def _range(graph: _Graph, length: str) -> str:
    index = graph.node("Range", graph.number(0), graph.node("Squeeze", length), graph.number(1))
    return graph.node("Unsqueeze", index, graph.number([0]))


class _Projected(NamedTuple):
    """Of a whole source: queries ``(S, L, Q)``, keys ``(S, L, H, D)``, values ``(S, H, L, D)``."""

    queries: str
    keys: str
    values: str


def _project(graph: _Graph, layer: EncoderLayer | DecoderLayer, x: str, rows: tuple[str, str]) -> _Projected:
    attention = layer.self_attention
    parts = graph.split(graph.matmul(graph.norm(x, layer.self_norm), attention.qkv), 3, 2)
    shape = graph.shape(*rows, attention.heads, attention.qkv_width // attention.heads)
    keys, values = (graph.reshape(part, shape) for part in parts[1:])
    return _Projected(parts[0], keys, graph.node("Transpose", values, perm=(0, 2, 1, 3)))


def _read_self(
    graph: _Graph, layer: EncoderLayer | DecoderLayer, x: str, read: _Projected, bias: str, rows: tuple[str, str]
) -> str:
    """Self-attention on the whole source, with its residual."""
    attention = layer.self_attention
    keys_t = graph.node("Transpose", read.keys, perm=(0, 2, 3, 1))
    features = attention.qkv_width // attention.heads
    queries = graph.reshape(read.queries, graph.shape(*rows, attention.heads, features))
    queries = graph.node("Transpose", queries, perm=(0, 2, 1, 3))
    mixed = graph.attend(queries, keys_t, read.values, features, bias)
    joined = graph.reshape(graph.node("Transpose", mixed, perm=(0, 2, 1, 3)), graph.shape(*rows, attention.qkv_width))
    return graph.node("Add", x, graph.matmul(joined, attention.out))


def _read_ffn(graph: _Graph, layer: EncoderLayer | DecoderLayer, x: str) -> str:
    inner = graph.node("Relu", graph.matmul(graph.norm(x, layer.ffn_norm), layer.ffn.inner))
    return graph.node("Add", x, graph.matmul(inner, layer.ffn.outer))


# ---- A step -------------------------------------------------------------------------------------


def _step(graph: _Graph, model: Transformer, known: Sequence[str], outputs: Sequence[str]) -> None:
    layers = model.decoder_stack()
    past, before = known[-2 * len(layers) :], known[: -2 * len(layers)]
    rows = (graph.length("tokens", 0), graph.length("tokens", 1))
    tokens, positions = (graph.reshape(name, graph.number([-1])) for name in ("tokens", "positions"))
    x = graph.embed(model, model.tables.target, tokens, positions, model.decoder_width)
    hidden = None
    if model.encoder_norm is None:
        pads = graph.number([0] * 9 + [1])
        hidden = graph.node("Pad", "hidden", pads, to="next_hidden", mode="constant")
    for index, layer in enumerate(layers):
        names = outputs[len(outputs) - 2 * len(layers) + 2 * index :]
        x = _step_self(graph, layer, x, rows, (past[2 * index], past[2 * index + 1]), (names[0], names[1]), hidden)
        if layer.cross_attention is not None and layer.cross_norm is not None:
            source = before[len(before) - 2 * len(layers) + 2 * index :]
            x = _step_cross(graph, layer, x, rows, (source[0], source[1]))
        inner = graph.node("Relu", graph.gemm(graph.norm(x, layer.ffn_norm), layer.ffn.inner))
        x = graph.node("Add", x, graph.gemm(inner, layer.ffn.outer))
    table = model.tables.target if model.tables.own_output is None else model.tables.own_output
    columns: torch.Tensor = table.weight
    if model.decoder_width != table.embedding_dim:
        columns = columns[:, : model.decoder_width]
    scores = graph.node(
        "Gemm", graph.norm(x, model.decoder_norm), graph.weight(columns), alpha=1.0, beta=1.0, transA=0, transB=1
    )
    graph.reshape(scores, graph.shape(*rows, -1), to="logits")
    graph.node("Add", "positions", graph.number(1), to="next_positions")


def _step_self(
    graph: _Graph,
    layer: DecoderLayer,
    x: str,
    rows: tuple[str, str],
    past: KeysValues,
    following: KeysValues,
    hidden: str | None,
) -> str:
    attention: SelfAttention = layer.self_attention
    heads, features = attention.heads, attention.qkv_width // attention.heads
    projected = graph.gemm(graph.norm(x, layer.self_norm), attention.qkv)
    parts = graph.split(graph.reshape(projected, graph.shape(*rows, 3 * heads, 1, features)), 3, 2)
    keys, values = (
        graph.node("Concat", old, new, axis=3, to=name)
        for old, new, name in zip(past, parts[1:], following, strict=True)
    )
    keys_t = graph.node("Transpose", keys, perm=(0, 1, 2, 4, 3))
    mixed = graph.attend(parts[0], keys_t, values, features, hidden)
    joined = graph.reshape(mixed, graph.number([-1, attention.qkv_width]))
    return graph.node("Add", x, graph.gemm(joined, attention.out))


def _step_cross(graph: _Graph, layer: DecoderLayer, x: str, rows: tuple[str, str], source: KeysValues) -> str:
    attention = cast("CrossAttention", layer.cross_attention)
    heads, features = attention.heads, attention.qkv_width // attention.heads
    projected = graph.gemm(graph.norm(x, cast("nn.LayerNorm", layer.cross_norm)), attention.q)
    queries = graph.reshape(projected, graph.shape(*rows, heads, 1, features))
    mixed = graph.attend(queries, *source, features, f"bias{layer.attended}")
    joined = graph.reshape(mixed, graph.number([-1, attention.qkv_width]))
    return graph.node("Add", x, graph.gemm(joined, attention.out))
