"""Weights of a mixture from logits: how a relaxed model is run at a step.

Shapes: K_d choices of a decision, K combinations of the choices of a group of decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch

Relaxation: TypeAlias = Callable[[torch.Tensor, float, torch.Generator], torch.Tensor]
"""Log-probabilities ``(K,)``, temperature, generator to gates ``(K,)`` that sum to 1."""


def log_probabilities(logits: Sequence[torch.Tensor], group: Sequence[int]) -> torch.Tensor:
    """Of all combinations of a group's choices ``(K,)``, the first decision being the most significant digit."""
    joint = logits[group[0]].log_softmax(0)
    for column in group[1:]:
        joint = (joint[:, None] + logits[column].log_softmax(0)).flatten()
    return joint


def softmax(log_p: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """All choices at once (DARTS, 1806.09055, Equation 2)."""
    return torch.softmax(log_p / temperature, 0)


def gumbel(log_p: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """All choices at once, randomly weighted (Gumbel-softmax, 1611.01144; SNAS, 1812.09926)."""
    return torch.softmax((log_p + _noise(log_p, generator)) / temperature, 0)


def straight_through(log_p: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """One drawn choice with a weight of 1 and the gradient of the Gumbel-softmax (GDAS, 1910.04465): what was not drawn
    is not run. Where batch norm follows, a layer's weight changes nothing and its gradient is small: prefer
    ``two_paths`` for chains without shortcuts."""
    soft = gumbel(log_p, temperature, generator)
    hard = torch.zeros_like(soft)
    hard[int(soft.argmax())] = 1.0
    return hard + soft - soft.detach()


def two_paths(log_p: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """Two distinct drawn choices, weighted by their probabilities among the two (after ProxylessNAS, 1812.00332,
    Section 3.2.1, which runs both to compare them and uses the output of one; here their weighted sum is used)."""
    if len(log_p) < 3:
        return torch.softmax(log_p, 0)
    drawn = torch.topk(log_p.detach() + _noise(log_p, generator), 2).indices
    return torch.zeros_like(log_p).index_put((drawn,), torch.softmax(log_p[drawn], 0))


def drawn_choice(log_p: torch.Tensor, generator: torch.Generator) -> int:
    """One choice, drawn with its probability."""
    return int((log_p.detach() + _noise(log_p, generator)).argmax())


def one_path(log_p: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One drawn choice with a weight of 1 and no gradient."""
    hard = torch.zeros_like(log_p)
    hard[drawn_choice(log_p, generator)] = 1.0
    return hard


RELAXATIONS: Mapping[str, Relaxation] = {
    "softmax": softmax,
    "gumbel": gumbel,
    "straight_through": straight_through,
    "two_paths": two_paths,
}


def _noise(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard Gumbel noise."""
    uniform = torch.rand(like.shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))
