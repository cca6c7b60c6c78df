"""What a transformer carries from one generated token to the next.

Shapes: S sentences, K beams of a sentence, H heads, P tokens so far, D features of a head, L source tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .layers import KeysValues


@dataclass(frozen=True)
class Memory:
    """What was read of the sources.

    Args:
        keys_values: Of each decoder layer: ``(S, 1, H, D, a x L)`` and ``(S, 1, H, a x L, D)`` for a layer that
            attends to the last a encoder layers. Empty for a decoder-only network.
        biases: By a: what hides padding ``(S, 1, 1, 1, a x L)``. By 0: what hides the padding of a prompt among
            the tokens so far ``(S, 1, 1, 1, P)``, for a decoder-only network.
    """

    keys_values: tuple[KeysValues, ...]
    biases: Mapping[int, torch.Tensor]


@dataclass(frozen=True)
class State:
    """Everything that one step needs.

    Args:
        memory: Of the sources.
        past: Keys and values of each decoder layer ``(S, K, H, P, D)``.
        positions: Of the tokens that come next ``(S, K)``.
    """

    memory: Memory
    past: tuple[KeysValues, ...]
    positions: torch.Tensor

    def rows(self, rows: torch.Tensor) -> State:
        """The state whose sentences are ``rows`` of this one's."""

        def pick(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.index_select(0, rows)

        def pick_all(pairs: tuple[KeysValues, ...]) -> tuple[KeysValues, ...]:
            return tuple((pick(keys), pick(values)) for keys, values in pairs)

        biases = {attended: pick(bias) for attended, bias in self.memory.biases.items()}
        return State(Memory(pick_all(self.memory.keys_values), biases), pick_all(self.past), pick(self.positions))
