"""Nothing: a branch of this mixer hands its input on."""

from __future__ import annotations

from typing import ClassVar

import torch

from ..sizes import MixerSizes, Work
from .base import Mixer, Role, State, StateSpec


class Identity(Mixer):
    """Adds zeros to the hidden state, and keeps no state."""

    kind: ClassVar[str] = "identity"

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        return torch.zeros_like(x), ()

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        return torch.zeros_like(x), ()

    def init_state(self, batch: int) -> State:
        return ()

    @classmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        return ()

    @classmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        return Work(0, 0, 0, 0)

    @classmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        return Work(0, 0, 0, 0)

    def roles(self) -> dict[str, Role]:
        return {}
