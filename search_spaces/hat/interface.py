"""Names and shapes of a transformer's two graphs, and which output is fed to which input. No torch here.

Shapes: S sentences, K beams of a sentence, H heads, D features of a head, L source tokens, P tokens so far,
a encoder layers that are attended to.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..deployable import TensorSpec
from ..workload import Workload
from .specs import DecoderLayerSpec, TransformerSpec

READERS = ("encoder", "prefill")
"""Names of the first graph, with an encoder and without."""
STEP = "step"


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
                f"bias{count}", (sentences, 1, 1, 1, count * length), dynamic_axes={0: "sentences", 4: _axis(count)}
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
    return {name: fed_input(name) for name in step_outputs(spec)[1:]}


def fed_input(output: str) -> str:
    """The input of the next step that an output of a step is, by name."""
    kept = output.removeprefix("next_")
    return kept if kept in ("positions", "hidden") else f"past_{kept}"


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
        TensorSpec(keys, (sentences, 1, heads, features, length), dynamic_axes={0: "sentences", 4: axis}),
        TensorSpec(values, (sentences, 1, heads, length, features), dynamic_axes={0: "sentences", 3: axis}),
    ]
