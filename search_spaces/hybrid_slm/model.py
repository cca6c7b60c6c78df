"""A language model of any mixers: all tokens at once, or one after the other with a state.

Shapes: B sequences, T tokens, V vocabulary, C width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from .ffn import SwiGLU
from .mixers import Mixer, State, mixer_class
from .mixers.base import Role
from .specs import FFN, LanguageModelSpec, Operator


class Branch(nn.Module):
    """``x + operator(norm(x))``."""

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        width = operator.sizes.width
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.body: nn.Module = (
            SwiGLU(width, operator.ffn_width) if operator.kind == FFN else mixer_class(operator.kind)(operator.sizes)
        )

    @property
    def mixer(self) -> Mixer | None:
        """The mixer, if it is one."""
        return self.body if isinstance(self.body, Mixer) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, T, C)`` to the same."""
        y: torch.Tensor = x + self.body(self.norm(x))
        return y

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        """And the state after the last token."""
        if self.mixer is None:
            return self(x), ()
        mixed, state = self.mixer.prefill(self.norm(x))
        return x + mixed, state

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """``(B, C)`` to the same, see :meth:`Mixer.step`."""
        if self.mixer is None:
            return self(x), ()
        mixed, following = self.mixer.step(self.norm(x), position, state)
        return x + mixed, following


class LanguageModel(nn.Module):
    """Embedding, branches, norm, output layer.

    Args:
        spec: What it is made of.
    """

    def __init__(self, spec: LanguageModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = nn.Embedding(spec.vocabulary, spec.width)
        nn.init.normal_(self.embedding.weight, std=spec.width**-0.5 if spec.tied else 1.0)
        self.meta = nn.Parameter(torch.randn(spec.meta_tokens, spec.width)) if spec.meta_tokens else None
        self.branches = nn.ModuleList(Branch(operator) for operator in spec.operators)
        self.norm = nn.RMSNorm(spec.width, eps=1e-6)
        self.head = nn.Linear(spec.width, spec.vocabulary, bias=False)
        nn.init.normal_(self.head.weight, std=spec.width**-0.5)
        if spec.tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, T, V)`` of the token after each of ``tokens`` ``(B, T)``."""
        x = self._embedded(tokens)
        for branch in self._branches():
            x = branch(x)
        return self._logits(x[:, self.spec.meta_tokens :])

    def prefill(self, tokens: torch.Tensor) -> tuple[torch.Tensor, tuple[State, ...]]:
        """Logits ``(B, V)`` of the token after a prompt ``(B, T)``, and the state of each branch then."""
        x, states = self._embedded(tokens), []
        for branch in self._branches():
            x, state = branch.prefill(x)
            states.append(state)
        return self._logits(x[:, -1]), tuple(states)

    def step(
        self, tokens: torch.Tensor, position: torch.Tensor, states: tuple[State, ...]
    ) -> tuple[torch.Tensor, tuple[State, ...]]:
        """Logits ``(B, V)`` of the token after ``tokens`` ``(B,)``, whose number in the sequence is ``position`` (1,),
        from 0, meta tokens counted."""
        x, following = self.scaled_embedding(tokens), []
        for branch, state in zip(self._branches(), states, strict=True):
            x, state = branch.step(x, position, state)
            following.append(state)
        return self._logits(x), tuple(following)

    def init_states(self, batch: int) -> tuple[State, ...]:
        """Before the first token (or meta token)."""
        return tuple(() if branch.mixer is None else branch.mixer.init_state(batch) for branch in self._branches())

    def roles(self) -> dict[str, Role]:
        """Of every matrix of the branches, see :meth:`Mixer.roles`; the embedding is added to the hidden state and read
        by the output layer row by row: both are ``reads`` of rows."""
        found: dict[str, Role] = {"embedding.weight": "reads", "head.weight": "reads"}
        for number, branch in enumerate(self._branches()):
            body = cast("Mixer | SwiGLU", branch.body)
            found |= {f"branches.{number}.body.{name}": role for name, role in body.roles().items()}
        return found

    def scaled_embedding(self, tokens: torch.Tensor) -> torch.Tensor:
        """Vectors of about unit size a feature."""
        vectors: torch.Tensor = self.embedding(tokens)
        return vectors * self.spec.width**0.5 if self.spec.tied else vectors

    def _embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.scaled_embedding(tokens)
        if self.meta is None:
            return x
        return torch.cat([self.meta.expand(len(x), -1, -1), x], dim=1)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(x))
        return logits

    def _branches(self) -> list[Branch]:
        return [cast(Branch, branch) for branch in self.branches]
