"""A language model as two graphs: what reads the prompt, and what a token costs.

States are inputs and outputs. Caches of keys grow by concatenation, which was measured to be faster through ONNX
Runtime than caches of a fixed size; see :mod:`.interface` for names and shapes.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import nn

from .interface import PREFILL, STEP
from .mixers import State
from .model import LanguageModel


class PrefillGraph(nn.Module):
    """``tokens (B, T)`` to logits ``(B, V)``, position (1,) and states."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """In the order of :func:`~gnomon.search_spaces.hybrid_slm.interface.outputs`."""
        logits, states = self.model.prefill(tokens)
        position = torch.full((1,), tokens.shape[1] + self.model.spec.meta_tokens, device=tokens.device)
        return (logits, position, *(tensor for state in states for tensor in state))


class StepGraph(nn.Module):
    """``tokens (B,)``, ``position (1,)`` and states to logits ``(B, V)``, the next position and states."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor, position: torch.Tensor, *known: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Inputs in the order of :func:`~gnomon.search_spaces.hybrid_slm.interface.step_inputs`."""
        logits, states = self.model.step(tokens, position, grouped(self.model, known))
        return (logits, position + 1, *(tensor for state in states for tensor in state))


def graph_modules(model: LanguageModel) -> dict[str, nn.Module]:
    """Both graphs by name; they share the model's weights."""
    return {PREFILL: PrefillGraph(model), STEP: StepGraph(model)}


def grouped(model: LanguageModel, tensors: tuple[torch.Tensor, ...]) -> tuple[State, ...]:
    """A flat list of states as one tuple a branch."""
    rest, states = list(tensors), []
    for branch in model.each_branch():
        mixer = branch.mixer
        count = 0 if mixer is None else len(mixer.state_specs(mixer.sizes, 1, 1))
        count += branch.router is not None
        states.append(tuple(rest[:count]))
        del rest[:count]
    return tuple(states)
