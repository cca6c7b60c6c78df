"""Transformers that write a target sequence for a source: with an encoder, or as one stack that reads it first.

Shapes: S sentences, K beams of a sentence, L source tokens, T target tokens, V target vocabulary, W width,
P tokens so far.
"""

from __future__ import annotations

from itertools import islice

import torch
from torch import nn

from ...errors import SpaceError
from ..sequence import PAD
from .decoding import Memory, State
from .layers import MASKED, DecoderLayer, EncoderLayer, KeysValues, Modules
from .specs import TransformerSpec
from .tables import Tables


class Transformer(nn.Module):
    """An encoder-decoder (1706.03762) whose decoder layers read one or more of the last encoder layers (HAT,
    2005.14187, Section 3.1), or, without encoder layers, a decoder that reads the source as a prompt.

    It is a :class:`~gnomon.search_spaces.sequence.SequenceToSequence`.

    Args:
        spec: The network.
        make: What its layers are made of.
        widths: Widths for which positions are kept; None for the network's own.
    """

    def __init__(self, spec: TransformerSpec, make: Modules | None = None, widths: tuple[int, ...] = ()) -> None:
        super().__init__()
        make = make or Modules()
        self.encoder_width, self.decoder_width = spec.encoder_width, spec.decoder_width
        self.encoder_depth, self.decoder_depth = len(spec.encoder_layers), len(spec.decoder_layers)
        self.dropout, self.source_dropout = nn.Dropout(spec.dropout), nn.Dropout(spec.dropout)
        source_width = spec.encoder_width if spec.encoder_layers else spec.decoder_width
        widths = widths or (source_width, spec.decoder_width)
        self.tables = Tables(spec.vocabulary, source_width, spec.decoder_width, widths)
        self.encoder_layers = nn.ModuleList(
            EncoderLayer(spec.encoder_width, spec.qkv_width, layer.heads, layer.ffn, spec.dropout, make)
            for layer in spec.encoder_layers
        )
        self.encoder_norm = make.norm(spec.encoder_width) if spec.encoder_layers else None
        self.decoder_layers = nn.ModuleList(
            DecoderLayer(
                spec.decoder_width,
                spec.qkv_width,
                layer.self_heads,
                layer.ffn,
                spec.dropout,
                make,
                cross_heads=layer.cross_heads,
                memory_width=spec.encoder_width,
                attended=layer.attended,
            )
            for layer in spec.decoder_layers
        )
        self.decoder_norm = make.norm(spec.decoder_width)

    # ---- The protocol of sequence models ---------------------------------------------------------

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Logits ``(S, T, V)`` of the token after each of ``target`` ``(S, T)``, given ``source`` ``(S, L)``."""
        if self.encoder_norm is None:
            self._check_length(source.shape[1] + target.shape[1])
            return self._continue_prompt(source, target)
        self._check_length(max(source.shape[1], target.shape[1]))
        memory = self.read(source)
        x = self.tables.embed_target(target, _steps(target), self.decoder_width)
        x = self._through_decoder(self.dropout(x), causal_bias(target), memory)[0]
        return self.tables.scores(self.decoder_norm(x))

    def start(self, source: torch.Tensor) -> State:
        """See :meth:`SequenceToSequence.start`."""
        self._check_length(source.shape[1])
        if self.encoder_norm is None:
            return self.prefill(source)
        empty = self.decoder_norm.weight.new_zeros(len(source), 1, 1, 0, 1)
        past = tuple(
            (empty.expand(-1, -1, a.heads, -1, a.qkv_width // a.heads),) * 2
            for a in (layer.self_attention for layer in self.decoder_stack())
        )
        return State(self.read(source), past, torch.zeros_like(source[:, :1]))

    def step(self, tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """See :meth:`SequenceToSequence.step`."""
        self._check_length(state.past[0][0].shape[3] + 1)
        logits, following = self.advance(tokens[:, None], state)
        return logits[:, 0], following

    def reorder(self, state: State, rows: torch.Tensor) -> State:
        """See :meth:`SequenceToSequence.reorder`."""
        return state.rows(rows)

    # ---- The parts of which graphs are made ------------------------------------------------------

    def read(self, source: torch.Tensor) -> Memory:
        """What the decoder layers need of the sources ``(S, L)``: their keys and values, made once."""
        bias = padding_bias(source, self.decoder_norm.weight.dtype)
        x = self.source_dropout(self.tables.embed_source(source, _steps(source), self.encoder_width))
        encoded = []
        for layer in islice(self.encoder_layers, self.encoder_depth):
            x = layer(x, bias)
            encoded.append(x)
        kept = encoded[-max(layer.attended for layer in self.decoder_stack()) :]
        assert self.encoder_norm is not None
        kept = [self.encoder_norm(x) for x in kept]
        keys_values = tuple(layer.memory(kept) for layer in self.decoder_stack())
        attended = sorted({layer.attended for layer in self.decoder_stack()})
        return Memory(keys_values, {count: torch.cat([bias.unsqueeze(1)] * count, dim=-1) for count in attended})

    def prefill(self, prompt: torch.Tensor) -> State:
        """The state of a decoder-only network that has read prompts ``(S, L)``."""
        hidden = padding_bias(prompt, self.decoder_norm.weight.dtype)
        positions = prompt_positions(prompt)
        x = self.source_dropout(self.tables.embed_source(prompt, positions, self.decoder_width))
        pasts = self._through_decoder(x, causal_bias(prompt) + hidden, None)[1]
        past = tuple((keys.unsqueeze(1), values.unsqueeze(1)) for keys, values in pasts)
        return State(Memory((), {0: hidden.unsqueeze(1)}), past, prompt_lengths(prompt))

    def advance(self, tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """Logits ``(S, K, V)`` of the token after ``tokens`` ``(S, K)``, and the state that follows."""
        memory, biases = state.memory, dict(state.memory.biases)
        hidden = biases.get(0)
        if hidden is not None:
            hidden = biases[0] = nn.functional.pad(hidden, (0, 1))
        x = self.tables.embed_target(tokens.reshape(-1), state.positions.reshape(-1), self.decoder_width)
        past = []
        for index, layer in enumerate(self.decoder_stack()):
            read = memory.keys_values[index] if memory.keys_values else None
            x, kept = layer.advance(x, tokens, state.past[index], hidden, read, biases.get(layer.attended))
            past.append(kept)
        logits = self.tables.scores(self.decoder_norm(x)).reshape(*tokens.shape, -1)
        return logits, State(Memory(memory.keys_values, biases), tuple(past), state.positions + 1)

    def _continue_prompt(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        positions = prompt_lengths(source) + _steps(target)
        x = torch.cat(
            [
                self.tables.embed_source(source, prompt_positions(source), self.decoder_width),
                self.tables.embed_target(target, positions, self.decoder_width),
            ],
            dim=1,
        )
        hidden = nn.functional.pad(padding_bias(source, x.dtype), (0, target.shape[1]))
        both = torch.cat([source, target], dim=1)
        x = self._through_decoder(self.dropout(x), causal_bias(both) + hidden, None)[0]
        return self.tables.scores(self.decoder_norm(x[:, source.shape[1] :]))

    def _through_decoder(
        self, x: torch.Tensor, bias: torch.Tensor, memory: Memory | None
    ) -> tuple[torch.Tensor, list[KeysValues]]:
        past = []
        for index, layer in enumerate(self.decoder_stack()):
            read = None if memory is None else memory.keys_values[index]
            x, kept = layer(x, bias, read, None if memory is None else memory.biases[layer.attended])
            past.append(kept)
        return x, past

    def decoder_stack(self) -> list[DecoderLayer]:
        """The decoder layers that are in use."""
        return [layer for layer in islice(self.decoder_layers, self.decoder_depth) if isinstance(layer, DecoderLayer)]

    def _check_length(self, length: int) -> None:
        if length > self.tables.max_length:
            raise SpaceError(
                "too many tokens for this network",
                field="tokens",
                value=length,
                allowed=f"up to {self.tables.max_length} (max_length of its space)",
            )


def padding_bias(tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Added to scores of keys so that padding is not seen ``(S, 1, 1, L)``."""
    return (tokens == PAD).to(dtype)[:, None, None, :] * MASKED


def causal_bias(tokens: torch.Tensor) -> torch.Tensor:
    """Added to scores so that a token of ``(S, T)`` sees itself and those before it ``(T, T)``."""
    index = torch.arange(tokens.shape[1], device=tokens.device)
    return (index[None, :] > index[:, None]).to(torch.float32) * MASKED


def prompt_lengths(prompt: torch.Tensor) -> torch.Tensor:
    """Tokens of each prompt without padding ``(S, 1)``: the first position behind it."""
    return (prompt != PAD).to(torch.int64).sum(dim=1, keepdim=True)


def prompt_positions(prompt: torch.Tensor) -> torch.Tensor:
    """Positions of a prompt's tokens ``(S, L)``; those of padding do not matter."""
    return ((prompt != PAD).to(torch.int64).cumsum(dim=1) - 1).clamp(min=0)


def _steps(tokens: torch.Tensor) -> torch.Tensor:
    """Positions ``(1, T)``."""
    return torch.arange(tokens.shape[1], device=tokens.device)[None]
