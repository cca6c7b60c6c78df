"""Softmax attention over the last tokens only.

Beltagy et al. (2004.05150), causal as in Mistral (2310.06825): a token sees itself and the ``window - 1`` before it.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from ....errors import SpaceError
from ..sizes import MixerSizes, Work
from ._attending import MASKED, attend, causal_bias
from ._bands import attend_in_bands
from ._rings import put_in_ring, ring_of, tokens_in_ring
from .attention import Attention
from .base import State, StateSpec


class SlidingWindow(Attention):
    """Grouped-query attention over ``sizes.window`` tokens; its cache is as long as the window from the first token on.

    A cache that grows up to the window would be faster before the window is full, and has a length that an exported
    graph cannot be relied on to keep.
    """

    kind: ClassVar[str] = "sliding_window"

    def __init__(self, sizes: MixerSizes) -> None:
        super().__init__(sizes)
        if sizes.window < 1:
            raise SpaceError("sees nothing", field="window", value=sizes.window, allowed="1 or more")

    def visible(self, positions: torch.Tensor) -> torch.Tensor:
        return causal_bias(positions, self.sizes.window) == 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():
            return super().forward(x)
        queries, keys, values = self._projected(x, torch.arange(x.shape[1], device=x.device))
        mixed: torch.Tensor = self.out(attend_in_bands(queries, keys, values, self.sizes.window))
        return mixed

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        positions, window = torch.arange(x.shape[1], device=x.device), self.sizes.window
        queries, keys, values = self._projected(x, positions)
        mixed = attend(queries, keys, values, causal_bias(positions, window))
        return self.out(mixed), (ring_of(keys, window), ring_of(values, window))

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        queries, key, value = self._projected(x[:, None], position)
        keys, values = put_in_ring(state[0], key, position), put_in_ring(state[1], value, position)
        bias = torch.where(tokens_in_ring(position, self.sizes.window) < 0, MASKED, 0.0)
        return self.out(attend(queries, keys, values, bias))[:, 0], (keys, values)

    @classmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        shape = (batch, sizes.kv_heads, sizes.window, sizes.head_size)
        return (StateSpec("keys", shape), StateSpec("values", shape))

    @classmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        parameters = 2 * sizes.width * (sizes.inner + sizes.kv_inner)
        kept = 2 * sizes.window * sizes.kv_inner
        return Work(parameters, parameters + 2 * sizes.window * sizes.inner, kept, kept)

    @classmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        kept = 2 * sizes.window * sizes.kv_inner
        full = super().prefill_work(sizes, tokens)
        return Work(full.parameters, full.macs, kept, kept)
