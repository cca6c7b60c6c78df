"""Language models as ONNX files made of exported operators: seconds an operator, milliseconds a model.

torch's exporter takes seconds for each operator of a model. Here it writes each *different* operator once, and models
are put together from these graphs, each copy with weights of its own. Such a file computes what the exporter's file of
that model would, for other random weights: it is for timing only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from gnomon.export.onnx_export import DEFAULT_OPSET, to_onnx
from gnomon.predictors.generation import Phase
from gnomon.schema import write_bytes
from gnomon.search_spaces import TensorSpec, Workload
from gnomon.search_spaces.hybrid_slm.interface import outputs, prefill_inputs, state_inputs, step_inputs
from gnomon.search_spaces.hybrid_slm.model import Branch, LanguageModel
from gnomon.search_spaces.hybrid_slm.specs import LanguageModelSpec, Operator

if TYPE_CHECKING:
    from onnx import ModelProto

PAST, TOKENS = 9, 9
"""Lengths at which operators are exported; they are free in the files."""


class ComposedModels:
    """Writes models of operators that were exported once.

    Args:
        folder: Where exported operators are kept.
        report: Told of every export, in words.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self._folder, self._report = folder, report
        self._read = cache(self._read_or_export)

    def write(self, spec: LanguageModelSpec, phase: Phase, path: Path) -> None:
        """The graph ``phase`` of a model, with its interface, as ``path``."""
        workload = Workload((1,), context=PAST, source_length=TOKENS, phase=phase)
        model = _Composition(phase, spec)
        model.add(self._read("begin", spec.to_json(), phase), "begin_")
        for number, operator in enumerate(spec.operators, 1):
            model.add(self._read("operator", operator.to_json(), phase), f"operator{number}_")
        model.add(self._read("end", spec.to_json(), phase), "end_")
        inputs = step_inputs(spec, workload) if phase == "step" else prefill_inputs(workload)
        write_bytes(path, model.proto(inputs, outputs(spec)).SerializeToString())

    def _read_or_export(self, kind: str, described: str, phase: Phase) -> ModelProto:
        import onnx

        if kind != "operator":  # begin and end are the same for all models of a width and a vocabulary
            spec = LanguageModelSpec.from_json(described)
            described = LanguageModelSpec(spec.vocabulary, spec.width, (), spec.tied).to_json()
        path = self._folder / f"{kind}-{phase}-{sha256(described.encode()).hexdigest()[:24]}.onnx"
        if not path.is_file():
            self._report(f"exporting {kind} {phase} {described}")
            torch.manual_seed(0)
            write_bytes(path, _exported(kind, described, phase).SerializeToString())
        return onnx.load(path)


def _exported(kind: str, described: str, phase: Phase) -> ModelProto:
    if kind == "operator":
        operator = Operator.from_json(described)
        return _exported_operator(operator, phase)
    model = LanguageModel(LanguageModelSpec.from_json(described))
    step, width = phase == "step", model.spec.width
    sequences = {0: "sequences"} if step else {0: "sequences", 1: "length"}
    shape = (1,) if step else (1, TOKENS)
    if kind == "begin":
        return to_onnx(_Begin(model), (TensorSpec("tokens", shape, "int64", sequences),), ("y",))
    return to_onnx(_End(model, step), (TensorSpec("x", (*shape, width), dynamic_axes=sequences),), ("logits",))


def _exported_operator(operator: Operator, phase: Phase) -> ModelProto:
    spec = LanguageModelSpec(2, operator.sizes.width, (operator,), max_length=operator.sizes.max_length)
    states = state_inputs(spec, 1, PAST)
    names = tuple(f"next_{state.name}" for state in states)
    branch = Branch(operator)
    if phase == "prefill":
        axes = {0: "sequences", 1: "length"}
        x = TensorSpec("x", (1, TOKENS, operator.sizes.width), dynamic_axes=axes)
        return to_onnx(_Prefill(branch), (x,), ("y", *names))
    x = TensorSpec("x", (1, operator.sizes.width), dynamic_axes={0: "sequences"})
    position = TensorSpec("position", (1,), "int64", constant=PAST)
    return to_onnx(_Step(branch), (x, position, *states), ("y", *names))


class _Begin(nn.Module):
    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model.scaled_embedding(tokens)


class _End(nn.Module):
    def __init__(self, model: LanguageModel, step: bool) -> None:
        super().__init__()
        self.model, self.step = model, step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.logits(x if self.step else x[:, -1])


class _Prefill(nn.Module):
    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, state = self.branch.prefill(x)
        return (y, *state)


class _Step(nn.Module):
    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: torch.Tensor, position: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, following = self.branch.step(x, position, tuple(state))
        return (y, *following)


class _Composition:
    """Graphs one after the other: ``y`` of each is ``x`` of the next, ``position`` is of all, states are each one's."""

    def __init__(self, phase: Phase, spec: LanguageModelSpec) -> None:
        self.phase, self.spec = phase, spec
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.functions: dict[tuple[str, str], Any] = {}
        self.opsets: dict[str, int] = {"": DEFAULT_OPSET}
        self.previous = ""

    def add(self, part: ModelProto, prefix: str) -> None:
        from onnx import compose, helper, numpy_helper

        named = compose.add_prefix(part, prefix, rename_functions=False)
        self.functions |= {(function.domain, function.name): function for function in named.functions}
        self.opsets |= {opset.domain: opset.version for opset in named.opset_import if opset.domain}
        for value in named.graph.input:
            own = value.name.removeprefix(prefix)
            self.nodes.append(helper.make_node("Identity", [self._source(own, prefix)], [value.name]))
        self.nodes += named.graph.node
        rng = np.random.default_rng(len(self.nodes))
        for initializer in named.graph.initializer:
            array = numpy_helper.to_array(initializer)
            table = initializer.name.endswith((".cos", ".sin"))  # of positions
            if array.ndim == 2 and array.dtype == np.float32 and not table:  # weights of its own
                initializer = numpy_helper.from_array(rng.permutation(array), initializer.name)
            self.initializers.append(initializer)
        for value in named.graph.output:
            own = value.name.removeprefix(prefix)
            if own.startswith("next_"):
                state = f"next_{prefix}{own.partition('_')[2].partition('_')[2]}"
                self.nodes.append(helper.make_node("Identity", [value.name], [state]))
            elif own == "logits":
                self.nodes.append(helper.make_node("Identity", [value.name], [own]))
            else:
                self.previous = value.name

    def _source(self, own: str, prefix: str) -> str:
        """Where an input of a part comes from. States of an operator alone are called ``operator1_...``."""
        if own == "x":
            return self.previous
        return own if own in ("tokens", "position") else f"{prefix}{own.partition('_')[2]}"

    def proto(self, inputs: tuple[TensorSpec, ...], names: tuple[str, ...]) -> ModelProto:
        from onnx import TensorProto, helper, numpy_helper

        one = 1 if self.phase == "step" else TOKENS
        self.initializers.append(numpy_helper.from_array(np.array([one], dtype=np.int64), "moved"))
        given = "position" if self.phase == "step" else "moved"
        self.nodes.append(helper.make_node("Add", [given, "moved"], ["next_position"]))
        types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
        graph = helper.make_graph(
            self.nodes,
            "model",
            [
                helper.make_tensor_value_info(
                    spec.name, types[spec.dtype], [spec.dynamic_axes.get(a, n) for a, n in enumerate(spec.shape)]
                )
                for spec in inputs
            ],
            [
                helper.make_tensor_value_info(n, types["int64" if n == "next_position" else "float32"], None)
                for n in names
            ],
            self.initializers,
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        model = helper.make_model(graph, opset_imports=opsets, functions=list(self.functions.values()), ir_version=10)
        return _cleaned(model)


def _cleaned(proto: ModelProto) -> ModelProto:
    """As the exporter leaves whole models: what several operators work out alike (of the position) is done once."""
    import onnx_ir
    from onnx_ir.passes import common

    model = onnx_ir.from_proto(proto)
    for each in (
        common.IdentityEliminationPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
    ):
        each(model)
    return onnx_ir.to_proto(model)
