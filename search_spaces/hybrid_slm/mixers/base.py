"""The contract of a token mixer: a whole sequence at once, or token by token with a state.

Shapes: B sequences, T tokens, C width, P tokens before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import nn

from ..sizes import MixerSizes, Work

State: TypeAlias = tuple[torch.Tensor, ...]
"""What a mixer carries from one token to the next, as tensors whose first axis is the sequence."""

Role: TypeAlias = Literal["reads", "writes"]

PROJECTIONS = {"queries": "q", "keys": "k", "values": "v", "out": "out"}
"""Layers by what they do, see :meth:`Mixer.projections`."""


@dataclass(frozen=True)
class StateSpec:
    """One tensor of a state.

    Args:
        name: Unique within the mixer, for example ``keys``.
        shape: With the batch first; of a growing axis the number of tokens so far.
        grows: The axis that grows with every token, if any.
        dtype: Name in numpy.
    """

    name: str
    shape: tuple[int, ...]
    grows: int | None = None
    dtype: str = "float32"


class Mixer(nn.Module, ABC):
    """Mixes tokens of a sequence, causally. Runs ``gnomon.testing.MixerSuite``.

    All randomness of ``__init__`` is torch's. :meth:`prefill` and :meth:`step` must export to ONNX with free numbers
    of sequences and tokens: no Python loop over tokens, no branch on values.

    Args:
        sizes: What it is made from.

    Raises:
        SpaceError: If it cannot be made from these sizes.
    """

    kind: ClassVar[str]
    """What a space calls it: the name of its module."""

    def __init__(self, sizes: MixerSizes) -> None:
        super().__init__()
        self.sizes = sizes

    # ---- What a mixer must say -----------------------------------------------------------------

    @abstractmethod
    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        """``(B, T, C)`` to the same, from the beginning of the sequences, and the state after the last token."""

    @abstractmethod
    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """One token: ``(B, C)`` to the same, and the state that follows.

        Args:
            x: The tokens' hidden states.
            position: Their number in the sequence, from 0: int64 ``(1,)``, the same for all sequences.
            state: After the tokens before.
        """

    @classmethod
    @abstractmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        """The tensors of a state after ``past`` tokens, in order."""

    @classmethod
    @abstractmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        """Cost of the token after ``past`` others."""

    @classmethod
    @abstractmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        """Cost of the first ``tokens`` tokens, all at once."""

    @abstractmethod
    def roles(self) -> dict[str, Role]:
        """By parameter name (as in ``named_parameters``), of every matrix ``(out, in)``: ``reads`` where it is applied
        to the hidden state, ``writes`` where its output is added to it. For weight normalisation; others are left out.
        """

    # ---- What a mixer may refine ---------------------------------------------------------------

    def projections(self) -> dict[str, torch.Tensor]:
        """Weights ``(out, in)``, or rows of them, that do what those of attention do: ``queries``, ``keys``, ``values``
        of all heads, one head after the other, and ``out``. From these a mixer begins that replaces another one.

        By default the layers ``q``, ``k``, ``v`` and ``out``, as far as there are such; none may be named so that does
        something else.
        """
        layers = {role: getattr(self, name, None) for role, name in PROJECTIONS.items()}
        return {role: layer.weight for role, layer in layers.items() if isinstance(layer, nn.Linear)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, T, C)`` to the same: :meth:`prefill` where nobody asks for the state."""
        return self.prefill(x)[0]

    def init_state(self, batch: int) -> State:
        """The state before the first token: zeros, by default."""
        reference = next(self.parameters())
        return tuple(
            torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype), device=reference.device)
            for spec in self.state_specs(self.sizes, batch, 0)
        )
