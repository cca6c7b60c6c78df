"""Names and shapes of a language model's two graphs, and which output is fed to which input.

``prefill`` reads a prompt, ``step`` one token. Both give the logits of the next token, its number in the sequence
(``position``, meta tokens counted) and the state of every mixer, whose tensors are named after the operator: the
keys of the third operator are ``operator3_keys`` as an input and ``next_operator3_keys`` as an output.

Nothing here imports torch but the mixers do, when they are asked for their states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ...schema import Record
from ..deployable import Call, Graph, TensorSpec
from ..workload import Workload
from .specs import FFN, LanguageModelSpec, Operator

PREFILL, STEP = "prefill", "step"
TOKENS, POSITION, LOGITS = "tokens", "position", "logits"
NEXT = "next_"

_PROBES = (3, 17, 130, 1030, 5003)
"""Numbers of tokens by which axes that grow alike are told from others."""


@dataclass(frozen=True)
class GenerationInterface(Record):
    """What whoever runs ``prefill.onnx`` and ``step.onnx`` must know; part of the files' metadata.

    Args:
        vocabulary: Number of tokens.
        max_length: Longest sequence, meta tokens not counted.
        meta_tokens: Vectors that ``prefill`` puts before the prompt; positions count them.
        states: Inputs of ``step`` that carry what was read so far, in order.
        feeds: By graph: which of its outputs is which input of the step that follows.
    """

    SCHEMA: ClassVar[str] = "gnomon.generation/1"

    vocabulary: int
    max_length: int
    meta_tokens: int
    states: tuple[str, ...]
    feeds: dict[str, dict[str, str]]


def interface(spec: LanguageModelSpec) -> GenerationInterface:
    """Of a model's exported graphs."""
    states = tuple(tensor.name for tensor in state_inputs(spec, 1, 1))
    feeds = {graph: {f"{NEXT}{name}": name for name in (POSITION, *states)} for graph in (PREFILL, STEP)}
    return GenerationInterface(spec.vocabulary, spec.max_length, spec.meta_tokens, states, feeds)


def outputs(spec: LanguageModelSpec) -> tuple[str, ...]:
    """Outputs of either graph, in order."""
    return (LOGITS, *interface(spec).feeds[STEP])


def prefill_inputs(workload: Workload) -> tuple[TensorSpec, ...]:
    """Inputs of ``prefill``: the prompt."""
    shape = (workload.batch, int(workload.source_length or 1))
    return (TensorSpec(TOKENS, shape, "int64", {0: "sequences", 1: "length"}),)


def step_inputs(spec: LanguageModelSpec, workload: Workload) -> tuple[TensorSpec, ...]:
    """Inputs of ``step`` with ``workload.context`` tokens, and the meta tokens, before it."""
    past = int(workload.context or 1) + spec.meta_tokens
    return (
        TensorSpec(TOKENS, (workload.batch,), "int64", {0: "sequences"}),
        TensorSpec(POSITION, (1,), "int64", constant=past),
        *state_inputs(spec, workload.batch, past),
    )


def state_inputs(spec: LanguageModelSpec, batch: int, past: int) -> tuple[TensorSpec, ...]:
    """The states of all operators after ``past`` tokens, meta tokens counted."""
    made: list[TensorSpec] = []
    for number, operator in enumerate(spec.operators, 1):
        made += [
            replace(tensor, name=state_name(number, tensor.name))
            for tensor in operator_states(operator, spec.skips, batch, past)
        ]
    return tuple(made)


def state_name(number: int, name: str) -> str:
    """Input of ``step`` for a state of an operator, whose number is from 1."""
    return f"operator{number}_{name}"


def operator_states(operator: Operator, skips: bool, batch: int, past: int) -> tuple[TensorSpec, ...]:
    """The states of one operator after ``past`` tokens; last, where operators may be skipped, whether it runs."""
    gates = (TensorSpec("gate", (batch, 1), dynamic_axes={0: "sequences"}, constant=1),) if skips else ()
    return (*_mixer_states(operator, batch, past), *gates)


def _mixer_states(operator: Operator, batch: int, past: int) -> Iterator[TensorSpec]:
    from .mixers import mixer_class

    if operator.kind == FFN:
        return
    mixer, sizes = mixer_class(operator.kind), operator.sizes
    lengths = [mixer.state_specs(sizes, batch, probe) for probe in _PROBES]
    for index, state in enumerate(mixer.state_specs(sizes, batch, past)):
        axes = {0: "sequences"}
        if state.grows is not None:
            axes[state.grows] = _axis(tuple(specs[index].shape[state.grows] for specs in lengths))
        yield TensorSpec(state.name, state.shape, state.dtype, axes)


def graphs(
    spec: LanguageModelSpec, workload: Workload, make: Callable[[str], Any]
) -> tuple[dict[str, Graph], tuple[Call, ...]]:
    """The two graphs of a network, and the plan of the workload's phase.

    Args:
        spec: The network.
        workload: ``phase`` is ``step`` for one token after ``context`` others, ``prefill`` for the prompt, and empty
            for the prompt and all tokens that are generated after it. A whole plan begins where the prompt ends.
        make: The torch module of a graph, by name.
    """
    if not workload.phase:
        workload = replace(workload, context=workload.source_length)
    named = outputs(spec)
    made = {
        PREFILL: Graph(prefill_inputs(workload), named, lambda: make(PREFILL)),
        STEP: Graph(step_inputs(spec, workload), named, lambda: make(STEP)),
    }
    return made, tuple(_plan(spec, workload))


def _plan(spec: LanguageModelSpec, workload: Workload) -> Iterator[Call]:
    feeds = interface(spec).feeds
    if workload.phase in ("", PREFILL):
        yield Call(PREFILL, 1, {} if workload.phase else feeds[PREFILL])
    if workload.phase in ("", STEP):
        yield Call(STEP, 1 if workload.phase else int(workload.generated_length or 1), feeds[STEP])


def _axis(lengths: tuple[int, ...]) -> str:
    """Axes that grow alike share a name: ``past`` where they are as long as what came before."""
    return "past" if lengths == _PROBES else f"past_{'_'.join(map(str, lengths))}"
