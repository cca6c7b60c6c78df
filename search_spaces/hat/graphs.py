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
from .interface import READERS, STEP, reading_outputs, step_feeds, step_inputs, step_outputs
from .specs import TransformerSpec
from .transformer import Transformer


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
        layers = self.model.decoder_stack()
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
