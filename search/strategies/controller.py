"""MnasNet's controller: a recurrent policy that learns from rewards.

Shapes: N trials, D decisions.
"""

from __future__ import annotations

import math
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import StrategyError
from ...search_spaces import Genotypes
from ..history import History, Trial
from ..problem import Problem
from ..strategy import Proposal, Strategy

if TYPE_CHECKING:
    from ._policy import Experience, PolicyLearner

FloatArray = npt.NDArray[np.float64]

ALGORITHMS = ("ppo", "reinforce")
LOG_PROBABILITIES, SAMPLED = "controller:log_probabilities", "controller:sampled"
"""Attributes: of each choice when it was sampled; the row as it was sampled, where the canonical row differs."""

EXTRA_SAMPLES = 32
"""Samples for each row wanted, in which an unseen one is looked for while all sampled ones are known."""


class Controller(Strategy):
    """The search of MnasNet (Tan et al. 2019, 1807.11626, Section 4.3): an LSTM samples architectures decision by
    decision, and proximal policy optimisation (or REINFORCE) makes those of high reward likelier.

    The reward is the objective's one value: ``objective=mnasnet_soft`` or ``mnasnet_hard`` for MnasNet's. Under those,
    as in the paper, a latency beyond the target costs reward and nothing else. An objective that does not look at
    latency, such as ``objective.metrics=[quality]``, leaves the limit to the strategy: what breaks it gets less
    reward than everything that holds it. A failed evaluation gets the lowest reward so far.

    The policy is a function of the trials: those that it sampled, in the order of their numbers and up to the first
    that is pending, in batches of ``batch``. Their choices' log-probabilities at the time of sampling, which PPO
    needs, are kept with each trial. So nothing else is to be kept: a resumed search learns again from the ledger,
    once, in milliseconds a batch, and goes on as it would have.

    A sample that was evaluated before is proposed again as a free copy, so that the policy learns from what it really
    samples; budgets count distinct architectures. Departs from the paper in three points: advantages are in units of
    a moving deviation of the reward, with an entropy bonus, as hundreds of samples take the place of 8,000; while all
    samples are known, more are drawn, a bounded number of times, until one is new; inactive decisions are skipped.

    Args:
        algorithm: ``ppo`` or ``reinforce``.
        hidden: Units of the LSTM.
        batch: Trials of an update.
        learning_rate: Of Adam.
        epochs: Passes of PPO over a batch.
        clip: PPO's bound on how far a choice's probability may move within a batch.
        entropy: Weight of the bonus on the entropy of choices, which keeps the policy looking around.
        baseline_decay: Of the moving average of rewards that a reward is compared with, a batch.
    """

    name: ClassVar[str] = "controller"
    max_objectives: ClassVar[int | None] = 1

    def __init__(
        self,
        algorithm: str = "ppo",
        hidden: int = 32,
        batch: int = 10,
        learning_rate: float = 0.02,
        epochs: int = 4,
        clip: float = 0.2,
        entropy: float = 0.1,
        baseline_decay: float = 0.9,
    ) -> None:
        if algorithm not in ALGORITHMS:
            raise StrategyError("no such algorithm", field="strategy.algorithm", value=algorithm, allowed=ALGORITHMS)
        for field, count in (("hidden", hidden), ("batch", batch), ("epochs", epochs)):
            if count < 1:
                raise StrategyError("too small", field=f"strategy.{field}", value=count, allowed="at least 1")
        for field, number, fits, allowed in (
            ("learning_rate", learning_rate, learning_rate > 0, "> 0"),
            ("clip", clip, 0 < clip < 1, "between 0 and 1"),
            ("entropy", entropy, entropy >= 0, "0 or more"),
            ("baseline_decay", baseline_decay, 0 <= baseline_decay < 1, "0 to below 1"),
        ):
            if not (fits and math.isfinite(number)):
                raise StrategyError("out of range", field=f"strategy.{field}", value=number, allowed=allowed)
        self.algorithm = algorithm
        self.hidden = hidden
        self.batch = batch
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.clip = clip
        self.entropy = entropy
        self.baseline_decay = baseline_decay
        self._learnt: tuple[bytes, int, PolicyLearner] | None = None

    def settings(self) -> dict[str, Any]:
        names = ("algorithm", "hidden", "batch", "learning_rate", "epochs", "clip", "entropy", "baseline_decay")
        return {name: getattr(self, name) for name in names}

    def propose(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
        """See :meth:`Strategy.propose`.

        Raises:
            StrategyError: If there is more than one objective value.
        """
        if len(problem.objective.directions) > 1:
            raise StrategyError(
                "optimises one value",
                field="objective",
                value=problem.objective.names,
                allowed="objective=mnasnet_soft or mnasnet_hard, or objective.metrics=[quality] with a latency limit",
            )
        return self._sample(self._learner(problem, history), problem, history, n, rng)

    # ---- Learning ---------------------------------------------------------------------------

    def _learner(self, problem: Problem, history: History) -> PolicyLearner:
        """The policy after all whole batches of the history; only what is new is learnt, if the rest is as it was."""
        from ._policy import LearningSettings, PolicyLearner, batches

        experience = _experience(problem, history)
        done, learner = 0, None
        if self._learnt is not None:
            digest, count, known = self._learnt
            if digest == _digest(problem, experience, count * self.batch):
                done, learner = count, known
        if learner is None:
            names = ("algorithm", "learning_rate", "epochs", "clip", "entropy", "baseline_decay")
            settings = LearningSettings(**{name: getattr(self, name) for name in names})
            learner = PolicyLearner(problem.space, self.hidden, settings)
        for part in batches(experience, self.batch, done):
            learner.learn(part)
            done += 1
        self._learnt = _digest(problem, experience, done * self.batch), done, learner
        return learner

    # ---- Sampling ---------------------------------------------------------------------------

    def _sample(
        self, learner: PolicyLearner, problem: Problem, history: History, n: int, rng: np.random.Generator
    ) -> Proposal:
        """Up to ``n`` samples, of which one at least is new if that can be had."""
        space = problem.space
        evaluated = set(space.keys(history.genotypes)) if history.evaluated else set()
        waiting = (set(space.keys(history.known)) if history.trials else set()) - evaluated
        sampled, log_probabilities = learner.policy.sample(n, rng)
        keys = space.keys(rows := space.canonical(sampled))
        index = [i for i, key in enumerate(keys) if key not in waiting]
        if all(keys[i] in evaluated for i in index):
            more, theirs = learner.policy.sample(n * EXTRA_SAMPLES, rng)
            keys = space.keys(further := space.canonical(more))
            new = [i for i, key in enumerate(keys) if key not in evaluated and key not in waiting][:1]
            index = [*index[: n - len(new)], *(n + i for i in new)]
            rows, sampled = np.concatenate([rows, further]), np.concatenate([sampled, more])
            log_probabilities = np.concatenate([log_probabilities, theirs])
        attributes = []
        for i in index:
            own: dict[str, Any] = {LOG_PROBABILITIES: log_probabilities[i].tolist()}
            if not np.array_equal(rows[i], sampled[i]):
                own[SAMPLED] = sampled[i].tolist()
            attributes.append(own)
        return Proposal(rows[index], None, tuple(attributes))


def _experience(problem: Problem, history: History) -> Experience:
    """What the policy sampled, up to the first that is pending, with rewards."""
    from ._policy import Experience

    finished: list[Trial] = []
    for trial in history.trials:
        if trial.state == "pending":
            break
        if LOG_PROBABILITIES in trial.attributes:
            finished.append(trial)
    shape = (len(finished), len(problem.space.decisions))
    rows: Genotypes = np.array([t.attributes.get(SAMPLED, t.genotype) for t in finished], dtype=np.int8).reshape(shape)
    log_probabilities = np.array([t.attributes[LOG_PROBABILITIES] for t in finished], dtype=np.float64).reshape(shape)
    return Experience(rows, log_probabilities, _rewards(problem, finished))


def _rewards(problem: Problem, trials: list[Trial]) -> FloatArray:
    """``(N,)``; of each trial from itself and those before it alone, so that what was learnt stays as it was."""
    limited = problem.limit_ms is not None and "latency_ms" not in problem.objective.metrics
    rewards = np.zeros(len(trials))
    lowest, highest = math.inf, -math.inf
    for i, trial in enumerate(trials):
        if trial.losses is None:
            rewards[i] = lowest if math.isfinite(lowest) else 0.0
            continue
        value = -trial.losses[0]
        lowest, highest = min(lowest, value), max(highest, value)
        broken = limited and trial.violation > 0
        rewards[i] = lowest - (highest - lowest) * min(trial.violation, 1.0) if broken else value
    return rewards


def _digest(problem: Problem, experience: Experience, count: int) -> bytes:
    """Of the first ``count`` samples, and of the space."""
    parts = (experience.rows, experience.log_probabilities, experience.rewards)
    text = repr(problem.space.spec()).encode()
    return sha256(b"".join([text, *(np.ascontiguousarray(part[:count]).tobytes() for part in parts)])).digest()
