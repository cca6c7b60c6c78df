"""Latency-aware differentiable search: probabilities of all choices learn by gradient, latency among the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError, StrategyError, TaskError
from ...predictors.expected import ExpectedValue, expected_latency, expected_value
from ...schema import read_json, write_json
from ...search_spaces import GENE_DTYPE, Genotypes, SearchSpace
from ...search_spaces.variation import distinct
from ...tasks.recipe import changed_recipe
from ...tasks.torch_state import derived_seed, seeded, torch_threads
from ..history import History
from ..problem import Problem
from ..strategy import Proposal, TrainedStrategy
from ._candidates import known_hashes

if TYPE_CHECKING:
    import torch

    from ...tasks import Progress, Task
    from ...tasks.price import Price
    from ...tasks.relaxed_training import RelaxedResult, RelaxedSettings

FloatArray = npt.NDArray[np.float64]

RESULT_FILE = "differentiable.json"
LEVELS = ("bilevel", "single")
POOL = 512
"""Rows drawn from the probabilities, at each of several sharpnesses."""
SHARPNESS = (1.0, 0.5, 0.25, 0.0)
"""Exponents of the probabilities that are drawn from: what is learnt, and ever flatter."""


class Differentiable(TrainedStrategy):
    """DARTS with a predicted latency in its loss (Latency-Aware Differentiable NAS, 2001.06392).

    One relaxed network of all choices is trained; with its weights learn the probabilities of the choices, on the
    task's loss plus what the predicted latency costs. The most likely network is proposed first, then others in the
    order of their probability, feasible ones before those that the latency model says to break the limit.

    Departs from the paper in that latency is not an MLP on relaxed codes but the expectation of the study's own latency
    model over the networks that the probabilities draw (:mod:`gnomon.predictors.expected`): it is right at the corners
    and between them, and needs no architectures measured for it.

    Args:
        relaxation: What is mixed at a step, and so what a step costs: ``softmax`` (DARTS), ``gumbel`` (SNAS),
            ``straight_through`` (GDAS: one path) or ``two_paths`` (after ProxylessNAS). ``sampled`` mixes nothing:
            ``networks`` are drawn and compared by the score function; latency keeps its exact gradient.
        level: ``bilevel`` (probabilities learn on a half of the train split of their own) or ``single``.
        epochs: Of the relaxed network.
        warmup_epochs: Of these, the first ones, in which weights learn under equal probabilities.
        lr: Of the probabilities' logits.
        weight_decay: Of the logits.
        temperature: First and last one, of ``softmax``, ``gumbel`` and ``straight_through``.
        networks: That a step draws and compares under ``sampled``.
        price: ``penalty``: ``weight`` times the metric as a share of the limit, or of its mean over the space where
            there is none. ``hinge``: only what is above the limit costs, with a multiplier that is adapted.
        weight: Of the metric in the loss (the paper's lambda); 0 for none. The hinge's first multiplier.
        rate: At which the hinge's multiplier is adapted.
        metric: ``latency_ms``, or an analytic cost (``macs``, ``parameters``, ``cio``, ``peak_activation_bytes``);
            those have no limit.
        training: What differs from the task's recipe for the weights.
        threads: Torch threads; None leaves torch as it is.
    """

    name: ClassVar[str] = "differentiable"

    def __init__(
        self,
        relaxation: str = "sampled",
        level: str = "bilevel",
        epochs: int = 60,
        warmup_epochs: int = 10,
        lr: float = 0.02,
        weight_decay: float = 0.001,
        temperature: Sequence[float] = (1.0, 1.0),
        networks: int = 4,
        price: str = "penalty",
        weight: float = 0.2,
        rate: float = 0.01,
        metric: str = "latency_ms",
        training: Mapping[str, Any] | None = None,
        threads: int | None = 1,
    ) -> None:
        _check(relaxation, level, epochs, warmup_epochs, temperature, price, metric)
        for field, value, least in (("lr", lr, 1e-12), ("weight_decay", weight_decay, 0), ("weight", weight, 0)):
            if not value >= least:
                raise StrategyError("out of range", field=f"strategy.{field}", value=value, allowed="a positive number")
        self.relaxation, self.level, self.epochs, self.warmup_epochs = relaxation, level, epochs, warmup_epochs
        self.lr, self.weight_decay, self.temperature = lr, weight_decay, (float(temperature[0]), float(temperature[1]))
        self.price, self.weight, self.rate, self.metric = price, weight, rate, metric
        self.training, self.threads = dict(training or {}), threads
        if networks < 2:
            raise ConfigError("nothing to compare", field="strategy.networks", value=networks, allowed="from 2")
        self.networks = networks
        self._result: RelaxedResult | None = None

    def settings(self) -> dict[str, Any]:
        names = ("relaxation", "level", "epochs", "warmup_epochs", "lr", "weight_decay", "temperature")
        more = ("networks", "price", "weight", "rate", "metric", "training", "threads")
        plain = {name: getattr(self, name) for name in (*names, *more)}
        return {**plain, "temperature": list(self.temperature)}

    # ---- Training ---------------------------------------------------------------------------

    def run(
        self, problem: Problem, task: Task, checkpoint: Path, *, seed: int, progress: Progress | None = None
    ) -> float:
        from ...tasks.relaxed_training import RelaxedResult

        identity = self._identity(problem, task, seed)
        path = checkpoint / RESULT_FILE
        if path.exists():
            data = read_json(path, RelaxedResult.SCHEMA)
            if data.get("identity") != identity:
                raise TaskError(
                    f"{checkpoint} holds another differentiable search", field="strategy", hint="Use another folder."
                )
            self._result = RelaxedResult.from_dict({"schema": RelaxedResult.SCHEMA, **data})
            return self._result.seconds
        self._result = self._train(problem, task, checkpoint, identity, seed, progress)
        write_json(path, RelaxedResult.SCHEMA, self._result.to_dict())
        for old in (checkpoint / "training.json", *checkpoint.glob("epoch-*.safetensors")):
            old.unlink(missing_ok=True)
        return self._result.seconds

    def _train(
        self,
        problem: Problem,
        task: Task,
        checkpoint: Path,
        identity: Mapping[str, Any],
        seed: int,
        progress: Progress | None,
    ) -> RelaxedResult:
        from dataclasses import replace

        from ...tasks.relaxed_training import RelaxedTrainer

        space = problem.space
        with torch_threads(self.threads):
            with seeded(derived_seed(seed)):
                model = space.relaxed()
            trainer = RelaxedTrainer(
                model,
                space,
                task.training_data(),
                changed_recipe(task, self.training, "strategy.training"),
                self._relaxed_settings(),
                self._price(problem),
                seed=seed,
                identity=identity,
            )
            return replace(trainer.run(checkpoint, progress), identity=identity)

    def _relaxed_settings(self) -> RelaxedSettings:
        from ...tasks.relaxed_training import RelaxedSettings

        return RelaxedSettings(
            relaxation=self.relaxation,
            level=self.level,
            epochs=self.epochs,
            warmup_epochs=self.warmup_epochs,
            lr=self.lr,
            weight_decay=self.weight_decay,
            temperature=self.temperature,
            networks=self.networks,
        )

    def _price(self, problem: Problem) -> Price | None:
        """What the metric costs, in shares of the limit, or else of its mean under equal probabilities."""
        from ...tasks.price import Price

        if self.weight == 0 and self.price == "penalty":
            return None
        own = expected_metric(problem, self.metric)
        if self.metric == "latency_ms" and problem.limit_ms is not None:
            scale = problem.limit_ms
        elif self.price == "hinge":
            raise StrategyError(
                "a hinge needs a latency limit",
                field="strategy.price",
                value=self.price,
                allowed="price=penalty, or objective.latency with metric=latency_ms",
            )
        else:
            scale = _mean(problem.space, own)
        return Price(own.expected, self.price, scale, self.weight, self.rate)

    def _identity(self, problem: Problem, task: Task, seed: int) -> dict[str, Any]:
        return {
            "strategy": self.settings(),
            "space": problem.space.spec(),
            "task": task.identity(),
            "limit_ms": problem.limit_ms,
            "seed": seed,
        }

    # ---- Proposing --------------------------------------------------------------------------

    def probabilities(self, problem: Problem) -> list[FloatArray]:
        """Of each decision's choices, as trained.

        Raises:
            StrategyError: If :meth:`run` was not called before.
        """
        if self._result is None:
            raise StrategyError("nothing is trained yet", field="strategy", value=self.name, hint="Call run first.")
        return [np.array(p) / np.sum(p) for p in self._result.probabilities]

    def propose(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
        space = problem.space
        probabilities = self.probabilities(problem)
        rows = [most_likely(space, probabilities), *(_drawn(space, probabilities, s, rng) for s in SHARPNESS)]
        unseen = distinct(space, np.concatenate(rows), known_hashes(space, history))
        order = np.lexsort((-_log_likelihood(space, probabilities, unseen), problem.violation(unseen) > 0))
        return Proposal(unseen[order][:n])


def expected_metric(problem: Problem, metric: str) -> ExpectedValue:
    """The expectation of a metric of a problem: the adapted latency model's, or an analytic cost."""
    if metric == "latency_ms":
        return expected_latency(problem.space, problem.latency)
    return expected_value(problem.space, lambda rows: problem.space.costs(rows).columns()[metric])


def most_likely(space: SearchSpace, probabilities: Sequence[FloatArray]) -> Genotypes:
    """The network of the most likely choices ``(1, D)``: what the relaxed network is discretised to."""
    return space.canonical(np.array([[int(p.argmax()) for p in probabilities]], dtype=GENE_DTYPE))


def _drawn(
    space: SearchSpace, probabilities: Sequence[FloatArray], sharpness: float, rng: np.random.Generator
) -> Genotypes:
    columns = []
    for p in probabilities:
        flat = np.maximum(p, 1e-12) ** sharpness
        columns.append(rng.choice(len(p), size=POOL, p=flat / flat.sum()))
    return space.canonical(np.stack(columns, axis=1).astype(GENE_DTYPE))


def _log_likelihood(space: SearchSpace, probabilities: Sequence[FloatArray], rows: Genotypes) -> FloatArray:
    """Of the active choices, each relative to its decision's most likely one ``(N,)``."""
    active = space.algebra.active(rows)
    total = np.zeros(len(rows))
    for column, p in enumerate(probabilities):
        relative = np.log(np.maximum(p, 1e-12) / p.max())
        total += np.where(active[:, column], relative[rows[:, column]], 0.0)
    return total


def _mean(space: SearchSpace, value: ExpectedValue) -> float:
    import torch

    equal: list[torch.Tensor] = [torch.full((int(k),), 1.0 / int(k)) for k in space.algebra.cardinalities]
    return float(value.expected(equal, np.random.default_rng(0)))


def _check(
    relaxation: str,
    level: str,
    epochs: int,
    warmup_epochs: int,
    temperature: Sequence[float],
    price: str,
    metric: str,
) -> None:
    from ..objective import DIRECTIONS

    relaxations = ("sampled", "softmax", "gumbel", "straight_through", "two_paths")
    metrics = tuple(name for name in DIRECTIONS if name != "quality")
    for field, value, allowed in (
        ("relaxation", relaxation, relaxations),
        ("level", level, LEVELS),
        ("price", price, ("penalty", "hinge")),
        ("metric", metric, metrics),
    ):
        if value not in allowed:
            raise ConfigError("unknown choice", field=f"strategy.{field}", value=value, allowed=allowed)
    if epochs < 1 or not 0 <= warmup_epochs < epochs:
        raise ConfigError(
            "out of range",
            field="strategy.warmup_epochs, strategy.epochs",
            value=(warmup_epochs, epochs),
            allowed="0 to below the epochs",
        )
    if len(temperature) != 2 or min(temperature) <= 0:
        raise ConfigError("not two temperatures", field="strategy.temperature", value=list(temperature), allowed="> 0")
