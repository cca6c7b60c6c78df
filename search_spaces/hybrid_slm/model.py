"""A language model of any mixers: all tokens at once, or one after the other with a state.

Shapes: B sequences, T tokens, V vocabulary, C width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from ...errors import SpaceError
from .ffn import SwiGLU
from .mixers import Mixer, State, mixer_class
from .mixers._attending import linear
from .mixers.base import Role
from .specs import FFN, LanguageModelSpec, Operator


class Branch(nn.Module):
    """``x + operator(norm(x))``; with a router ``x + gate * operator(norm(x))``.

    The router follows FiRST: one linear layer, decided on the prompt by the mean over its tokens, and kept for all
    tokens after it as the last tensor of the state ``(B, 1)``, 0 or 1. Where all tokens are known (:meth:`forward`)
    each has a gate of its own, so that none sees later ones.

    Args:
        operator: What it runs.
        skips: Whether there is a router. It begins by skipping nothing.
    """

    def __init__(self, operator: Operator, skips: bool = False) -> None:
        super().__init__()
        width = operator.sizes.width
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.body: nn.Module = (
            SwiGLU(width, operator.ffn_width, operator.fan_in)
            if operator.kind == FFN
            else mixer_class(operator.kind)(operator.sizes)
        )
        self.router = nn.Linear(width, 1) if skips else None
        if self.router is not None:
            nn.init.zeros_(self.router.weight)
            nn.init.constant_(self.router.bias, ROUTER_BIAS)

    @property
    def mixer(self) -> Mixer | None:
        """The mixer, if it is one."""
        return self.body if isinstance(self.body, Mixer) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, T, C)`` to the same."""
        return self.routed(x)[0]

    def routed(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B, T, C)`` to the same, and the probability of running for each token ``(B, T, 1)``: ones without router.

        Gates are 0 or 1; their gradient is that of the probability (straight through).
        """
        normed = self.norm(x)
        if self.router is None:
            return x + self.body(normed), torch.ones_like(x[..., :1])
        probability = self.router(normed).sigmoid()
        gate = (probability > 0.5).to(x.dtype) + probability - probability.detach()
        return x + gate * self.body(normed), probability

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        """And the state after the last token."""
        normed = self.norm(x)
        mixed, state = (self.body(normed), ()) if self.mixer is None else self.mixer.prefill(normed)
        if self.router is None:
            return x + mixed, state
        gate = (self.router(normed).sigmoid().mean(dim=1) > 0.5).to(x.dtype)
        return x + gate[:, None] * mixed, (*state, gate)

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """``(B, C)`` to the same, see :meth:`Mixer.step`."""
        kept = state if self.router is None else state[:-1]
        if self.router is not None and not torch.compiler.is_compiling() and not state[-1].any():
            return x, state  # nobody will read the state of an operator that stays skipped
        normed = self.norm(x)
        mixed, following = (self.body(normed), ()) if self.mixer is None else self.mixer.step(normed, position, kept)
        return (x + mixed, following) if self.router is None else (x + state[-1] * mixed, (*following, state[-1]))

    def init_state(self, batch: int) -> State:
        """Before the first token: nothing is skipped."""
        state = () if self.mixer is None else self.mixer.init_state(batch)
        return state if self.router is None else (*state, torch.ones_like(self.router.bias).expand(batch, 1))


ROUTER_BIAS = 2.0
"""Of fresh routers: they run everything with probability .88."""


class LanguageModel(nn.Module):
    """Embedding, branches, norm, output layer.

    Args:
        spec: What it is made of.
    """

    def __init__(self, spec: LanguageModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = nn.Embedding(spec.vocabulary, spec.width)
        nn.init.normal_(self.embedding.weight, std=spec.width**-0.5)
        self.meta = nn.Parameter(torch.randn(spec.meta_tokens, spec.width)) if spec.meta_tokens else None
        self.branches = nn.ModuleList(Branch(operator, spec.skips) for operator in spec.operators)
        self.norm = nn.RMSNorm(spec.width, eps=1e-6)
        self.exit_norm = nn.RMSNorm(spec.width, eps=1e-6) if spec.exit_after else None
        self.head = None if spec.tied else linear(spec.width, spec.vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, T, V)`` of the token after each of ``tokens`` ``(B, T)``."""
        x = self.embedded(tokens)
        for branch in self.each_branch():
            x = branch(x)
        return self.logits(x[:, self.spec.meta_tokens :])

    def prefill(self, tokens: torch.Tensor) -> tuple[torch.Tensor, tuple[State, ...]]:
        """Logits ``(B, V)`` of the token after a prompt ``(B, T)``, and the state of each branch then."""
        x, states = self.embedded(tokens), []
        for branch in self.each_branch():
            x, state = branch.prefill(x)
            states.append(state)
        return self.logits(x[:, -1]), tuple(states)

    def step(
        self, tokens: torch.Tensor, position: torch.Tensor, states: tuple[State, ...]
    ) -> tuple[torch.Tensor, tuple[State, ...]]:
        """Logits ``(B, V)`` of the token after ``tokens`` ``(B,)``, whose number in the sequence is ``position`` (1,),
        from 0, meta tokens counted."""
        x, following = self.scaled_embedding(tokens), []
        for branch, state in zip(self.each_branch(), states, strict=True):
            x, state = branch.step(x, position, state)
            following.append(state)
        return self.logits(x), tuple(following)

    def init_states(self, batch: int) -> tuple[State, ...]:
        """Before the first token (or meta token)."""
        return tuple(branch.init_state(batch) for branch in self.each_branch())

    def roles(self) -> dict[str, Role]:
        """Of every matrix of the branches, see :meth:`Mixer.roles`; the embedding is added to the hidden state and read
        by the output layer row by row: both are ``reads`` of rows."""
        found: dict[str, Role] = {"embedding.weight": "reads"}
        if self.head is not None:
            found["head.weight"] = "reads"
        for prefix, branch in self.named_branches():
            body = cast("Mixer | SwiGLU", branch.body)
            found |= {f"{prefix}.body.{name}": role for name, role in body.roles().items()}
        return found

    def scaled_embedding(self, tokens: torch.Tensor) -> torch.Tensor:
        """Vectors of about unit size a feature, from rows of about unit length, tied to the output layer or not."""
        vectors: torch.Tensor = self.embedding(tokens)
        scaled: torch.Tensor = vectors * self.spec.width**0.5
        return scaled

    def embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        """Meta tokens and the tokens' vectors ``(B, M + T, C)``."""
        x = self.scaled_embedding(tokens)
        if self.meta is None:
            return x
        # Not len(x), which an export would fix.
        return torch.cat([self.meta.expand(x.shape[0], -1, -1), x], dim=1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Of hidden states after the last branch."""
        return self._read_out(self.norm(x))

    def exit_logits(self, x: torch.Tensor) -> torch.Tensor:
        """Of hidden states after the first ``exit_after`` branches.

        Raises:
            SpaceError: If the model has no early exit.
        """
        if self.exit_norm is None:
            raise SpaceError("this model has no early exit", field="exit_after", value=self.spec.exit_after)
        return self._read_out(self.exit_norm(x))

    def _read_out(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = functional.linear(x, self.embedding.weight if self.head is None else self.head.weight)
        return logits

    def each_branch(self) -> list[Branch]:
        """The branches, in order."""
        return [cast(Branch, branch) for branch in self.branches]

    def named_branches(self) -> list[tuple[str, Branch]]:
        """With the prefixes of their parameters; of shared weights all of them, run or not."""
        return [(f"branches.{number}", branch) for number, branch in enumerate(self.each_branch())]
