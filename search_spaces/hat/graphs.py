"""A transformer as two graphs: what reads the source once, and what a token costs.

The first graph (``encoder``, or ``prefill`` without one) gives the source's keys and values of each decoder
layer, so that no step makes them again. Caches of a step grow by concatenation. That was measured to be faster
through ONNX Runtime than caches of a fixed size that are written at a position (see docs/sequences.md).

Shapes: S sentences, K beams of a sentence, H heads, D features of a head, L source tokens, P tokens so far,
a encoder layers that are attended to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..deployable import Call, Graph, TensorSpec
from ..workload import Workload
from .decoding import Memory, State
from .specs import DecoderLayerSpec, TransformerSpec
from .transformer import Transformer

READERS = ("encoder", "prefill")
"""Names of the first graph, with an encoder and without."""
STEP = "step"


class ReadingGraph(nn.Module):
    """The first graph: ``source (S, L)`` to biases, then keys and values of each decoder layer.

    Args:
        model: Whose weights it shares.
        beams: Of a prompt's caches, which are repeated as often.
    """

    def __init__(self, model: Transformer, beams: int = 1) -> None:
        super().__init__()
        self.model, self.beams = model, beams

    def forward(self, source: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """In the order of :func:`reading_outputs`."""
        if self.model.encoder_norm is not None:
            memory = self.model.read(source)
            biases = [memory.biases[attended] for attended in sorted(memory.biases)]
            return (*biases, *_flat(memory.keys_values))
        state = self.model.prefill(source)
        caches = [cache.expand(-1, self.beams, -1, -1, -1) for cache in _flat(state.past)]
        return (state.memory.biases[0], state.positions.expand(-1, self.beams), *caches)


class StepGraph(nn.Module):
    """One step: tokens and what is known so far to logits and what is known then."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor, *known: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Inputs in the order of :func:`step_inputs`, results in that of :func:`step_outputs`."""
        layers = [self.model.decoder_layers[i] for i in range(self.model.decoder_depth)]
        has_encoder = self.model.encoder_norm is not None
        attended = sorted({layer.attended for layer in layers})
        biases = dict(zip(attended, known, strict=False))
        rest = known[len(attended) :]
        pairs = [(rest[i], rest[i + 1]) for i in range(0, len(rest), 2)]
        read = tuple(pairs[: len(layers)]) if has_encoder else ()
        state = State(Memory(read, biases), tuple(pairs[len(read) :]), positions)
        logits, following = self.model.advance(tokens, state)
        hidden = () if has_encoder else (following.memory.biases[0],)
        return (logits, following.positions, *hidden, *_flat(following.past))


def _flat(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
    return [tensor for pair in pairs for tensor in pair]


# ---- Interfaces ---------------------------------------------------------------------------------


def attended_counts(layers: Sequence[DecoderLayerSpec]) -> list[int]:
    """How many encoder layers are attended to, each count once; 0 without encoder."""
    return sorted({layer.attended for layer in layers})


def reading_outputs(spec: TransformerSpec) -> tuple[str, ...]:
    """Outputs of the first graph."""
    layers = range(1, len(spec.decoder_layers) + 1)
    if not spec.encoder_layers:
        return ("hidden", "positions", *_named("past", layers))
    return (*(f"bias{count}" for count in attended_counts(spec.decoder_layers)), *_named("source", layers))


def step_inputs(spec: TransformerSpec, workload: Workload) -> tuple[TensorSpec, ...]:
    """Inputs of a step at the beginning of a sentence."""
    sentences, beams, length = workload.batch, workload.beam, int(workload.source_length or 0)
    rows = {0: "sentences", 1: "beams"}
    inputs = [TensorSpec(name, (sentences, beams), "int64", rows) for name in ("tokens", "positions")]
    past = 0
    if not spec.encoder_layers:
        past = length
        inputs.append(TensorSpec("hidden", (sentences, 1, 1, 1, past), dynamic_axes={0: "sentences", 4: "past"}))
    else:
        inputs += [
            TensorSpec(
                f"bias{count}", (sentences, 1, 1, count * length), dynamic_axes={0: "sentences", 3: _axis(count)}
            )
            for count in attended_counts(spec.decoder_layers)
        ]
        for i, layer in enumerate(spec.decoder_layers, 1):
            inputs += _source_tensors(i, layer, spec.qkv_width, sentences, layer.attended * length)
    for i, layer in enumerate(spec.decoder_layers, 1):
        heads = layer.self_heads
        shape = (sentences, beams, heads, past, spec.qkv_width // heads)
        inputs += [TensorSpec(name, shape, dynamic_axes={**rows, 3: "past"}) for name in _named("past", [i])]
    return tuple(inputs)


def step_outputs(spec: TransformerSpec) -> tuple[str, ...]:
    """Outputs of a step."""
    hidden = () if spec.encoder_layers else ("next_hidden",)
    return ("logits", "next_positions", *hidden, *_named("next", range(1, len(spec.decoder_layers) + 1)))


def step_feeds(spec: TransformerSpec) -> dict[str, str]:
    """Which output of a step is which input of the one after it. Tokens are chosen outside."""
    outputs = step_outputs(spec)[1:]
    names = {"next_positions": "positions", "next_hidden": "hidden"}
    return {name: names.get(name, name.replace("next", "past", 1)) for name in outputs}


def graphs(
    spec: TransformerSpec, workload: Workload, build: Callable[[], nn.Module]
) -> tuple[dict[str, Graph], tuple[Call, ...]]:
    """The two graphs of a network and the plan in which they are called.

    Args:
        spec: The network.
        workload: Sentences at once, source length, generated length and beams.
        build: Makes the network.
    """
    reader = READERS[0] if spec.encoder_layers else READERS[1]
    source = TensorSpec(
        "source", (workload.batch, int(workload.source_length or 0)), "int64", {0: "sentences", 1: "length"}
    )
    outputs = reading_outputs(spec)
    made = {
        reader: Graph((source,), outputs, lambda: ReadingGraph(build(), workload.beam)),  # type: ignore[arg-type]
        STEP: Graph(step_inputs(spec, workload), step_outputs(spec), lambda: StepGraph(build())),  # type: ignore[arg-type]
    }
    plan = (
        Call(reader, 1, {name: name for name in outputs}),
        Call(STEP, int(workload.generated_length or 1), step_feeds(spec)),
    )
    return made, plan


def _named(kind: str, layers: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{kind}_{part}{i}" for i in layers for part in ("keys", "values"))


def _axis(attended: int) -> str:
    return f"memory{attended}"


def _source_tensors(
    index: int, layer: DecoderLayerSpec, qkv_width: int, sentences: int, length: int
) -> list[TensorSpec]:
    heads, features = layer.cross_heads, qkv_width // layer.cross_heads
    keys, values = _named("source", [index])
    axis = _axis(layer.attended)
    return [
        TensorSpec(keys, (sentences, heads, features, length), dynamic_axes={0: "sentences", 3: axis}),
        TensorSpec(values, (sentences, heads, length, features), dynamic_axes={0: "sentences", 2: axis}),
    ]
