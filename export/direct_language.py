"""Writes the two graphs of a language model as ONNX from operators that torch's exporter wrote once.

torch's exporter takes seconds an operator, and a search measures many networks of few kinds of operators. So each
operator is exported by itself, once a process, with its weights as inputs; a network is these pieces, end to end, with
the network's own weights. What a device runs are the exporter's nodes.

Shapes: B sequences, T tokens, C width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ..search_spaces import TensorSpec
from .direct_graph import IR_VERSION
from .direct_tape import NotDirectError
from .onnx_export import DEFAULT_OPSET, check_interface, evaluation_mode, to_onnx

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto
    from torch import nn

    from ..search_spaces.hybrid_slm.graphs import PrefillGraph, StepGraph
    from ..search_spaces.hybrid_slm.model import LanguageModel

KEPT_PIECES = 256
EXAMPLE_TOKENS = 24
"""Tokens on which pieces are exported; their numbers are free."""


class Piece(NamedTuple):
    """An exported part of a network.

    Args:
        proto: Its graph.
        weights: Inputs that are weights, as they are called in the part's module.
    """

    proto: ModelProto
    weights: tuple[str, ...]


def is_language_graph(module: nn.Module) -> bool:
    """Whether :func:`language_to_onnx` knows this module: a graph of a stand-alone language model."""
    from ..search_spaces.hybrid_slm.graphs import PrefillGraph, StepGraph
    from ..search_spaces.hybrid_slm.model import LanguageModel

    return isinstance(module, PrefillGraph | StepGraph) and type(module.model) is LanguageModel


def language_to_onnx(
    module: nn.Module,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[str, ...],
    *,
    metadata: Mapping[str, str] | None = None,
    name: str = "the model",
) -> ModelProto:
    """The ONNX form of a graph of :mod:`gnomon.search_spaces.hybrid_slm.graphs`.

    Args:
        module: One that :func:`is_language_graph` knows.
        inputs, outputs: The graph's interface.
        metadata: Text stored in the file.
        name: For messages.

    Raises:
        ExportError: If an operator cannot be exported, or the module does not have this interface.
        NotDirectError: If an operator's form is more than a graph of nodes.
    """
    from ..search_spaces.hybrid_slm import interface as names
    from ..search_spaces.hybrid_slm.graphs import StepGraph

    model = cast("PrefillGraph | StepGraph", module).model
    graph = names.STEP if isinstance(module, StepGraph) else names.PREFILL
    net = _Assembly(model)
    net.add(_end(graph, "embedding", _bare(model)), {"tokens": names.TOKENS, "y": "hidden0"}, model)
    for number, (branch, operator) in enumerate(zip(model.each_branch(), model.spec.operators, strict=True), 1):
        states = names.operator_states(operator, model.spec.skips, 1, EXAMPLE_TOKENS)
        renamed = {"x": f"hidden{number - 1}", "y": f"hidden{number}", names.POSITION: names.POSITION}
        for state in states:
            known = names.state_name(number, state.name)
            renamed |= {state.name: known, f"{names.NEXT}{state.name}": f"{names.NEXT}{known}"}
        piece = _operator(graph, operator.to_json(), model.spec.skips)
        net.add(piece, renamed, branch)
    last = len(model.spec.operators)
    net.add(_end(graph, "head", _bare(model)), {"x": f"hidden{last}", "y": names.LOGITS}, model)
    net.count_positions(graph, model.spec.meta_tokens)
    proto = net.model(inputs, outputs)
    for key, text in sorted((metadata or {}).items()):
        proto.metadata_props.add(key=key, value=text)
    check_interface(proto, inputs, outputs, name)
    return proto


class _Assembly:
    """Pieces, end to end."""

    def __init__(self, model: LanguageModel) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._made: dict[str, Any] = {}
        self._known = {id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        self._used: dict[str, Any] = {}

    def add(self, piece: Piece, renamed: Mapping[str, str], part: nn.Module) -> None:
        """Appends a piece.

        Args:
            piece: What is appended.
            renamed: Names of its inputs and outputs in the whole.
            part: Whose weights it gets.
        """
        state = part.state_dict(keep_vars=True)
        names = dict(renamed)
        for weight in piece.weights:
            tensor = state[weight]
            names[_input_name(weight)] = known = self._known[id(tensor)]
            self._used[known] = tensor
        own = f"{len(self._nodes)}/"
        graph = _renamed(piece.proto.graph, names, own)
        self._nodes.extend(graph.node)
        self._constants.extend(graph.initializer)
        self._made.update({value.name: value for value in graph.output})

    def count_positions(self, graph: str, meta_tokens: int) -> None:
        """The next token's number in the sequence."""
        import numpy as np
        from onnx import TensorProto, helper, numpy_helper

        from ..search_spaces.hybrid_slm import interface as names

        following, step = f"{names.NEXT}{names.POSITION}", graph == names.STEP
        more = numpy_helper.from_array(np.array([1 if step else meta_tokens], dtype=np.int64), "position/more")
        self._constants.append(more)
        if not step:
            self._nodes.append(helper.make_node("Shape", [names.TOKENS], ["position/read"], start=1, end=2))
        self._nodes.append(
            helper.make_node("Add", [names.POSITION if step else "position/read", more.name], [following])
        )
        self._made[following] = helper.make_tensor_value_info(following, TensorProto.INT64, [1])

    def model(self, inputs: Sequence[TensorSpec], outputs: Sequence[str]) -> ModelProto:
        """The whole, with the network's weights."""
        from onnx import helper, numpy_helper

        weights = [numpy_helper.from_array(tensor.detach().cpu().numpy(), name) for name, tensor in self._used.items()]
        given = [_value(spec) for spec in inputs]
        made = [self._made[name] for name in outputs]
        graph = helper.make_graph(self._nodes, "main_graph", given, made, [*weights, *self._constants])
        opset = helper.make_opsetid("", DEFAULT_OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


@lru_cache(maxsize=KEPT_PIECES)
def _operator(graph: str, operator: str, skips: bool) -> Piece:
    """One branch, from ``x`` (and position and states) to ``y`` and the states that follow."""
    from ..search_spaces.hybrid_slm import interface as names
    from ..search_spaces.hybrid_slm.model import Branch
    from ..search_spaces.hybrid_slm.specs import Operator

    made = Operator.from_json(operator)
    states = names.operator_states(made, skips, 1, EXAMPLE_TOKENS)
    width = made.sizes.width
    if graph == names.STEP:
        x = TensorSpec("x", (1, width), dynamic_axes={0: "sequences"})
        data = (x, TensorSpec(names.POSITION, (1,), "int64", constant=EXAMPLE_TOKENS), *states)
    else:
        data = (TensorSpec("x", (1, EXAMPLE_TOKENS, width), dynamic_axes={0: "sequences", 1: "tokens"}),)
    outputs = ("y", *(f"{names.NEXT}{state.name}" for state in states))
    return _exported(Branch(made, skips), graph, data, outputs)


def _bare(model: LanguageModel) -> str:
    """What the two ends of a network depend on."""
    return replace(model.spec, operators=(), exit_after=0, skips=False).to_json()


@lru_cache(maxsize=KEPT_PIECES)
def _end(graph: str, part: str, spec: str) -> Piece:
    """What stands before (``embedding``) or after (``head``) the branches."""
    from ..search_spaces.hybrid_slm import interface as names
    from ..search_spaces.hybrid_slm.model import LanguageModel
    from ..search_spaces.hybrid_slm.specs import LanguageModelSpec

    model = LanguageModel(LanguageModelSpec.from_json(spec))
    tokens = {0: "sequences"} if graph == names.STEP else {0: "sequences", 1: "tokens"}
    shape = (1,) if graph == names.STEP else (1, EXAMPLE_TOKENS)
    if part == "embedding":
        data = TensorSpec("tokens", shape, "int64", tokens)
        weights = ["embedding.weight", *(["meta"] if model.meta is not None and graph == names.PREFILL else [])]
    else:
        data = TensorSpec("x", (*shape, model.spec.width), dynamic_axes=tokens)
        weights = ["norm.weight", "embedding.weight" if model.head is None else "head.weight"]
    return _exported(model, f"{graph} {part}", (data,), ("y",), weights)


def _exported(
    inner: nn.Module,
    what: str,
    data: Sequence[TensorSpec],
    outputs: Sequence[str],
    weights: Sequence[str] | None = None,
) -> Piece:
    """A part whose weights are inputs; those that it does not use are left out."""
    state = inner.state_dict()
    known = tuple(state if weights is None else weights)
    specs = [
        TensorSpec(_input_name(name), tuple(state[name].shape), str(state[name].dtype).removeprefix("torch."))
        for name in known
    ]
    with evaluation_mode(inner):
        part = _part(inner, what, len(data), known)
        proto = to_onnx(part, (*data, *specs), tuple(outputs), name=what, keep_inputs=False)
    if proto.functions or {entry.domain for entry in proto.opset_import} - {""}:
        raise NotDirectError(f"{what} needs functions of its own")
    taken = {value.name for value in proto.graph.input}
    return Piece(proto, tuple(name for name in known if _input_name(name) in taken))


def _part(inner: nn.Module, what: str, count: int, weights: Sequence[str]) -> nn.Module:
    """A module of ``count`` inputs and then the weights of ``inner``."""
    import torch
    from torch import nn

    from ..search_spaces.hybrid_slm import interface as names

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor, *known: torch.Tensor) -> tuple[torch.Tensor, ...]:
            called = cast(Any, self.inner)
            if what == f"{names.STEP} embedding":
                return (called.scaled_embedding(x),)
            if what == f"{names.PREFILL} embedding":
                return (called.embedded(x),)
            if what == f"{names.STEP} head":
                return (called.logits(x),)
            if what == f"{names.PREFILL} head":
                return (called.logits(x[:, -1]),)
            y, state = called.prefill(x) if what == names.PREFILL else called.step(x, known[0], known[1:])
            return (y, *state)

    class Part(nn.Module):
        def forward(self, *values: torch.Tensor) -> Any:
            given = {f"inner.{name}": value for name, value in zip(weights, values[count:], strict=True)}
            return torch.func.functional_call(Called(), given, values[:count])

    return Part()


def _input_name(weight: str) -> str:
    """Input of a piece that a weight is."""
    return f"weight.{weight}"


def _renamed(graph: GraphProto, names: Mapping[str, str], prefix: str) -> GraphProto:
    """A copy in which values have their names in the whole, or ``prefix`` before their own."""
    from onnx import GraphProto

    copy = GraphProto()
    copy.CopyFrom(graph)
    _rename(copy, names, prefix)
    return copy


def _rename(graph: GraphProto, names: Mapping[str, str], prefix: str) -> None:
    def known(name: str) -> str:
        return names.get(name, f"{prefix}{name}") if name else name

    for node in graph.node:
        node.name = f"{prefix}{node.name}"
        node.input[:] = [known(name) for name in node.input]
        node.output[:] = [known(name) for name in node.output]
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _rename(inner, names, prefix)
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = known(value.name)
    del graph.value_info[:]


def _value(spec: TensorSpec) -> ValueInfoProto:
    import numpy as np
    from onnx import helper

    shape = [spec.dynamic_axes.get(axis, length) for axis, length in enumerate(spec.shape)]
    return helper.make_tensor_value_info(spec.name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), shape)
