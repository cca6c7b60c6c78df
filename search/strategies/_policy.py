"""A recurrent policy over the decisions of a space, and how rewards change it.

Shapes: N architectures, D decisions, H units, C choices of all decisions together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...search_spaces import GENE_DTYPE, Genotypes, SearchSpace

FloatArray = npt.NDArray[np.float64]
Algorithm: TypeAlias = Literal["ppo", "reinforce"]

LOGIT_RANGE = 2.5
"""Logits are squashed into plus and minus this (NASNet's and ENAS's tanh constant), so that no choice dies out."""
START = 0.1
"""Weights begin uniformly within plus and minus this: the first policy is nearly uniform."""
DTYPE = torch.float64


class RecurrentPolicy:
    """An LSTM that takes one decision after the other, as the controllers of NASNet and MnasNet do.

    Its input is the embedding of the last choice taken, its output the logits of the next decision. Decisions that
    earlier choices make inactive are skipped: they are not asked, have log-probability 0, and leave the state alone.

    Args:
        space: Its decisions are taken in their order, in which parents come before what hangs on them.
        hidden: Units of the LSTM and size of the embeddings.
        seed: Of the initial weights.
    """

    def __init__(self, space: SearchSpace, hidden: int, *, seed: int = 0) -> None:
        self._space = space
        self._hidden = hidden
        counts = [len(each.choices) for each in space.decisions]
        self._first = np.concatenate([[0], np.cumsum(counts)])
        rng = np.random.default_rng(seed)
        choices = int(self._first[-1])

        def weights(*shape: int) -> Tensor:
            return torch.tensor(rng.uniform(-START, START, shape), dtype=DTYPE, requires_grad=True)

        self._embedding = weights(choices + 1, hidden)  # the last row stands before the first decision
        self._gates = weights(2 * hidden, 4 * hidden)
        self._gate_bias = weights(4 * hidden)
        self._head = weights(choices, hidden)
        self._head_bias = torch.zeros(choices, dtype=DTYPE, requires_grad=True)

    @property
    def parameters(self) -> list[Tensor]:
        """All that is learnt."""
        return [self._embedding, self._gates, self._gate_bias, self._head, self._head_bias]

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Genotypes, FloatArray]:
        """Rows ``(n, D)``, inactive genes 0, and the log-probability of each choice ``(n, D)``."""
        rows = np.zeros((n, len(self._space.decisions)), dtype=GENE_DTYPE)
        uniform = rng.random(rows.shape)
        with torch.no_grad():
            log_probabilities, _ = self._walk(rows, uniform)
        return rows, log_probabilities.numpy()

    def judge(self, rows: Genotypes) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy of each choice of given rows, both ``(N, D)`` and 0 where inactive."""
        return self._walk(rows, None)

    def _walk(self, rows: Genotypes, uniform: FloatArray | None) -> tuple[Tensor, Tensor]:
        """One decision after the other; with ``uniform`` numbers ``(N, D)``, choices are drawn into ``rows``."""
        n = len(rows)
        output, memory = torch.zeros(n, self._hidden, dtype=DTYPE), torch.zeros(n, self._hidden, dtype=DTYPE)
        last = np.full(n, len(self._embedding) - 1)
        taken, entropies = [], []
        asked = None if uniform is not None else self._space.algebra.active(rows)
        for gene in range(rows.shape[1]):
            active = (self._space.algebra.active(rows) if asked is None else asked)[:, gene]
            mask = torch.from_numpy(active)
            next_output, next_memory = self._cell(self._embedding[last], output, memory)
            output = torch.where(mask[:, None], next_output, output)
            memory = torch.where(mask[:, None], next_memory, memory)
            log_probabilities = self._log_probabilities(output, gene)
            probabilities = log_probabilities.exp()
            if uniform is not None:
                chosen = (np.cumsum(probabilities.numpy(), axis=1) < uniform[:, gene, None]).sum(axis=1)
                rows[active, gene] = np.minimum(chosen, probabilities.shape[1] - 1)[active]
            choice = rows[:, gene].astype(np.int64)
            picked = log_probabilities[torch.arange(n), torch.from_numpy(choice)]
            taken.append(torch.where(mask, picked, 0.0))
            entropies.append(torch.where(mask, -(probabilities * log_probabilities).sum(dim=1), 0.0))
            last = np.where(active, self._first[gene] + choice, last)
        return torch.stack(taken, dim=1), torch.stack(entropies, dim=1)

    def _cell(self, entered: Tensor, output: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """One step of an LSTM (Hochreiter and Schmidhuber 1997, with forget gate)."""
        gates = torch.cat([entered, output], dim=1) @ self._gates + self._gate_bias
        entry, forget, release, content = gates.chunk(4, dim=1)
        memory = torch.sigmoid(forget) * memory + torch.sigmoid(entry) * torch.tanh(content)
        return torch.sigmoid(release) * torch.tanh(memory), memory

    def _log_probabilities(self, output: Tensor, gene: int) -> Tensor:
        part = slice(int(self._first[gene]), int(self._first[gene + 1]))
        logits = output @ self._head[part].T + self._head_bias[part]
        return torch.log_softmax(LOGIT_RANGE * torch.tanh(logits), dim=1)


@dataclass(frozen=True)
class Experience:
    """What was sampled and what came of it.

    Args:
        rows: As they were sampled ``(N, D)``.
        log_probabilities: Of each choice when it was sampled ``(N, D)``.
        rewards: ``(N,)``, larger is better.
    """

    rows: Genotypes
    log_probabilities: FloatArray
    rewards: FloatArray


@dataclass(frozen=True)
class LearningSettings:
    """How a policy learns; see ``Controller``."""

    algorithm: Algorithm = "ppo"
    learning_rate: float = 0.02
    epochs: int = 4
    clip: float = 0.2
    entropy: float = 0.1
    baseline_decay: float = 0.9


class PolicyLearner:
    """A policy, its optimiser and its baseline. Deterministic: the same experience in the same order gives the same
    policy."""

    def __init__(self, space: SearchSpace, hidden: int, settings: LearningSettings) -> None:
        self.policy = RecurrentPolicy(space, hidden)
        self._settings = settings
        self._optimizer = _Adam(self.policy.parameters, settings.learning_rate)
        self._baseline: float | None = None
        self._power = 0.0

    def learn(self, experience: Experience) -> None:
        """One update: some epochs of PPO (Schulman et al. 2017, 1707.06347), or one of REINFORCE (Williams 1992)."""
        advantages = torch.from_numpy(self._advantages(experience.rewards))[:, None]
        before = torch.from_numpy(experience.log_probabilities)
        settings = self._settings
        for _ in range(settings.epochs if settings.algorithm == "ppo" else 1):
            now, entropy = self.policy.judge(experience.rows)
            if settings.algorithm == "ppo":
                gain = _clipped(torch.exp(now - before), advantages, settings.clip)
            else:
                gain = now * advantages
            # A mean over decisions would make the step depend on how many of them are inactive.
            loss = -(gain.sum(dim=1) + settings.entropy * entropy.sum(dim=1)).mean()
            self._optimizer.step(loss)

    def _advantages(self, rewards: FloatArray) -> FloatArray:
        """Rewards above a moving average of earlier ones, in units of their moving deviation ``(N,)``."""
        decay = self._settings.baseline_decay
        if self._baseline is None:
            self._baseline, self._power = float(rewards.mean()), float(rewards.var())
        above = rewards - self._baseline
        deviation = math.sqrt(max(self._power, 1e-12))
        self._baseline += (1 - decay) * float(above.mean())
        self._power = decay * self._power + (1 - decay) * float(np.square(above).mean())
        return np.clip(above / deviation, -ADVANTAGE_RANGE, ADVANTAGE_RANGE)


class _Adam:
    """Adam (Kingma and Ba 2014). PyTorch's takes seconds to import, for its compiler."""

    def __init__(self, parameters: Sequence[Tensor], rate: float) -> None:
        self._parameters = parameters
        self._rate = rate
        self._first = [torch.zeros_like(each) for each in parameters]
        self._second = [torch.zeros_like(each) for each in parameters]
        self._steps = 0

    def step(self, loss: Tensor) -> None:
        self._steps += 1
        gradients = torch.autograd.grad(loss, self._parameters)
        corrections = [1 - beta**self._steps for beta in ADAM_BETAS]
        with torch.no_grad():
            for each, gradient, first, second in zip(
                self._parameters, gradients, self._first, self._second, strict=True
            ):
                first.lerp_(gradient, 1 - ADAM_BETAS[0])
                second.lerp_(gradient.square(), 1 - ADAM_BETAS[1])
                each -= self._rate * first / corrections[0] / ((second / corrections[1]).sqrt() + ADAM_EPSILON)


ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8

ADVANTAGE_RANGE = 3.0
"""Advantages are cut off here: networks that fail badly are hundreds of deviations off."""


def _clipped(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """PPO's surrogate, equation (7), for each choice ``(N, D)``."""
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def batches(experience: Experience, size: int, done: int) -> Sequence[Experience]:
    """Whole batches of ``size``, from the one after the first ``done``."""
    starts = range(done * size, len(experience.rows) - size + 1, size)
    parts = (slice(start, start + size) for start in starts)
    return [Experience(experience.rows[p], experience.log_probabilities[p], experience.rewards[p]) for p in parts]
