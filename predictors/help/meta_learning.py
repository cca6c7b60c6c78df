"""Meta-SGD with HELP's modulator: the inner loop, the episodes, checkpoints.

Shapes: T tasks, N architectures, V nodes, C columns a node, R references, Z modulations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import PredictorError, SchemaError
from ...schema import check_schema, write_bytes
from .network import HelpNetwork, Modulator, Weights, as_tensor, divergence, for_tasks
from .tasks import Episode, MetaTasks, draw_episode

CHECKPOINT_SCHEMA = "gnomon.help_checkpoint/1"
INITIAL_STEP = 1e-3
VALIDATION_ROWS = 400


@dataclass(frozen=True)
class MetaSettings:
    """How HELP is meta-trained; defaults are its own for NAS-Bench-201.

    Args:
        episodes: Steps of Adam; 4,000 for FBNet.
        tasks: Settings an episode, if the pool has as many.
        support: Measurements the inner loop fits.
        query: Measurements the outer loss is of.
        steps: Inner gradient steps; with 0 only the embedding tells devices apart.
        learning_rate: Of Adam.
        divergence_weight: Of the modulator's divergence from a standard normal.
        modulate: Whether z changes the head.
        embed: Whether the networks see the hardware embedding; without, zeros in its place.
        second_order: Whether the outer gradient goes through the inner one.
        validate_every: Episodes between validations.
    """

    episodes: int = 2000
    tasks: int = 8
    support: int = 10
    query: int = 200
    steps: int = 2
    learning_rate: float = 1e-4
    divergence_weight: float = 0.1
    modulate: bool = True
    embed: bool = True
    second_order: bool = True
    validate_every: int = 50


@dataclass(frozen=True)
class MetaProgress:
    """What a progress callback is told after each episode.

    Args:
        episode: Finished, from 1.
        episodes: In all.
        loss: Of this episode.
        score: Mean Spearman of the last validation; NaN before the first.
        best: The best so far.
    """

    episode: int
    episodes: int
    loss: float
    score: float
    best: float


@dataclass
class MetaWeights:
    """What meta-training learns: initial weights, a step size for each, the modulator."""

    initial: Weights
    step_sizes: Weights
    modulator: Weights

    def flat(self) -> Weights:
        """All of them by one name each."""
        parts = {"initial": self.initial, "step_sizes": self.step_sizes, "modulator": self.modulator}
        return {f"{part}.{name}": weight for part, weights in parts.items() for name, weight in weights.items()}

    @classmethod
    def from_flat(cls, tensors: Mapping[str, Tensor]) -> MetaWeights:
        """What :meth:`flat` gave; other names are ignored."""
        parts: dict[str, Weights] = {"initial": {}, "step_sizes": {}, "modulator": {}}
        for key, tensor in tensors.items():
            part, _, name = key.partition(".")
            if part in parts:
                parts[part][name] = tensor
        return cls(**parts)

    def copy(self) -> MetaWeights:
        """The same numbers, apart from any graph."""
        return MetaWeights.from_flat({name: weight.detach().clone() for name, weight in self.flat().items()})


class MetaLearner:
    """HELP's two loops over a set of architectures.

    Args:
        network: Scores from weights.
        settings: Of the loops.
    """

    def __init__(self, network: HelpNetwork, settings: MetaSettings) -> None:
        self.network = network
        self.settings = settings
        self.modulator = Modulator(network.n_references, 2 * network.width)

    def initial(self, seed: int) -> MetaWeights:
        """Random weights by seed, and equal step sizes."""
        generator = torch.Generator().manual_seed(seed)
        initial = self.network.initial(generator)
        step_sizes = {name: torch.full_like(weight, INITIAL_STEP) for name, weight in initial.items()}
        return MetaWeights(initial, step_sizes, self.modulator.initial(generator))

    def task_weights(self, weights: MetaWeights, embeddings: Tensor, noise: Tensor | None) -> tuple[Weights, Tensor]:
        """Weights of each task before the inner loop, and the modulator's divergence ``(T,)``.

        Args:
            weights: Meta-learnt.
            embeddings: ``(T, R)``.
            noise: Standard normal ``(T, Z)``; None for the mean of z.
        """
        start = for_tasks(weights.initial, len(embeddings))
        if not self.settings.modulate:
            return start, torch.zeros(len(embeddings))
        mean, deviation = self.modulator.posterior(weights.modulator, self.seen(embeddings))
        z = mean if noise is None else mean + deviation * noise
        return self.modulator.modulated(start, z), divergence(mean, deviation)

    def seen(self, embeddings: Tensor) -> Tensor:
        """The embeddings, or zeros where they are switched off."""
        return embeddings if self.settings.embed else torch.zeros_like(embeddings)

    def scores(self, weights: Weights, columns: Tensor, embeddings: Tensor) -> Tensor:
        """Scores ``(T, N)``; see :meth:`HelpNetwork.scores`."""
        return self.network.scores(weights, columns, self.seen(embeddings))

    def inner_loop(
        self,
        weights: Weights,
        step_sizes: Weights,
        columns: Tensor,
        embeddings: Tensor,
        targets: Tensor,
        *,
        kept: Tensor | None = None,
        training: bool = False,
    ) -> Weights:
        """Weights after ``steps`` steps on the support, each weight with its own step size (Meta-SGD).

        Args:
            weights: Of T tasks.
            step_sizes: Shared.
            columns: Of the support ``(T, V, K, C)`` or ``(1, V, K, C)``.
            embeddings: ``(T, R)``.
            targets: ``(T, K)``.
            kept: Which of the support each task sees ``(T, K)``, as 1 and 0; default all.
            training: Whether gradients flow through the steps.
        """
        share = torch.ones_like(targets) if kept is None else kept
        share = share / share.sum(dim=1, keepdim=True)
        for _ in range(self.settings.steps):
            if not training:
                weights = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
            errors = self.scores(weights, columns, embeddings) - targets
            loss = (errors.square() * share).sum()
            gradients = torch.autograd.grad(
                loss, list(weights.values()), create_graph=training and self.settings.second_order
            )
            weights = {
                name: weight - step_sizes[name] * gradient
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            }
        return weights if training else {name: weight.detach() for name, weight in weights.items()}

    def episode_loss(
        self, weights: MetaWeights, columns: Tensor, tasks: MetaTasks, episode: Episode, noise: Tensor
    ) -> Tensor:
        """Mean squared error on the queries after the inner loop, plus the weighted divergence.

        HELP adds the divergence of the episode's last task only; this is its mean over the tasks,
        the same in expectation.
        """
        embeddings = as_tensor(tasks.embeddings[episode.settings])
        start, divergences = self.task_weights(weights, embeddings, noise)

        def part(rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
            targets = as_tensor(tasks.targets[episode.settings[:, None], rows])
            return columns[:, torch.from_numpy(rows)].transpose(0, 1), targets

        support, support_targets = part(episode.support)
        query, query_targets = part(episode.query)
        adapted = self.inner_loop(start, weights.step_sizes, support, embeddings, support_targets, training=True)
        errors = self.scores(adapted, query, embeddings) - query_targets
        return errors.square().mean() + self.settings.divergence_weight * divergences.mean()

    def validate(self, weights: MetaWeights, columns: Tensor, tasks: MetaTasks, references: Tensor) -> float:
        """Mean Spearman over settings, each adapted from its references, with z at its mean."""
        embeddings = as_tensor(tasks.embeddings)
        with torch.no_grad():
            start, _ = self.task_weights(weights, embeddings, None)
        targets = as_tensor(tasks.targets[:, references.numpy()])
        adapted = self.inner_loop(start, weights.step_sizes, columns[None, :, references], embeddings, targets)
        found = []
        for setting, rows in enumerate(tasks.rows):
            rows = rows[:: max(1, len(rows) // VALIDATION_ROWS)]
            own = {name: weight[setting : setting + 1] for name, weight in adapted.items()}
            with torch.no_grad():
                scores = self.scores(own, columns[None, :, torch.from_numpy(rows)], embeddings[setting : setting + 1])
            found.append(rank_correlation(scores[0].numpy(), tasks.targets[setting, rows]))
        return float(np.mean(found))


class MetaTrainer:
    """Meta-training that can be killed and goes on from its checkpoint to the same end.

    Args:
        learner: The loops.
        seed: Of initial weights and episodes.
        checkpoint: A safetensors file, written at each validation; None for none.
        progress: Called after each episode.
    """

    def __init__(
        self,
        learner: MetaLearner,
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        progress: Callable[[MetaProgress], None] | None = None,
    ) -> None:
        self.learner = learner
        self.seed = seed
        self.checkpoint = checkpoint
        self.progress = progress

    def train(self, columns: Tensor, tasks: MetaTasks, references: Tensor, validation: MetaTasks | None) -> MetaWeights:
        """The weights with the best validation score, or the last if there is nothing to validate on.

        Args:
            columns: Of all architectures ``(V, N, C)``.
            tasks: To learn from.
            references: Rows of the references ``(R,)``.
            validation: Settings whose Spearman, from their references alone, chooses the weights.

        Raises:
            PredictorError: If the checkpoint is of another training.
        """
        settings = self.learner.settings
        weights = self.learner.initial(self.seed)
        best, best_score, score, start = weights.copy(), float("nan"), float("nan"), 0
        parameters = list(weights.flat().values())
        for parameter in parameters:
            parameter.requires_grad_()
        optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
        identity = self._identity(tasks, references, validation)
        if self.checkpoint is not None and self.checkpoint.exists():
            start, best_score, best = _load(self.checkpoint, identity, weights, optimizer)
        for episode in range(start, settings.episodes):
            rng = np.random.default_rng([self.seed, episode])
            drawn = draw_episode(tasks, settings.tasks, settings.support, settings.query, rng)
            noise = as_tensor(rng.standard_normal((len(drawn.settings), self.learner.modulator.size)))
            loss = self.learner.episode_loss(weights, columns, tasks, drawn, noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done = episode + 1
            if done % settings.validate_every == 0 or done == settings.episodes:
                if validation is not None:
                    score = self.learner.validate(weights, columns, validation, references)
                if validation is None or not score <= best_score:
                    best, best_score = weights.copy(), score
                if self.checkpoint is not None:
                    _save(self.checkpoint, identity, done, best_score, weights, best, optimizer)
            if self.progress is not None:
                self.progress(MetaProgress(done, settings.episodes, float(loss.detach()), score, best_score))
        return best

    def _identity(self, tasks: MetaTasks, references: Tensor, validation: MetaTasks | None) -> str:
        """What a checkpoint belongs to: data, settings and seed."""
        digest = hashlib.sha256()
        digest.update(json.dumps([asdict(self.learner.settings), self.seed, self.learner.network.width]).encode())
        digest.update(references.numpy().tobytes())
        for part in (tasks, *(() if validation is None else (validation,))):
            for array in (part.targets, part.embeddings, *part.rows):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def rank_correlation(predicted: npt.NDArray[Any], measured: npt.NDArray[Any]) -> float:
    """Spearman's; 0 where either side is constant."""
    from scipy.stats import spearmanr

    varies = np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return float(spearmanr(predicted, measured).statistic) if varies else 0.0


def _save(
    path: Path,
    identity: str,
    episode: int,
    best_score: float,
    weights: MetaWeights,
    best: MetaWeights,
    optimizer: torch.optim.Adam,
) -> None:
    from safetensors.torch import save

    tensors = {f"best/{name}": weight for name, weight in best.flat().items()}
    for name, weight in weights.flat().items():
        state = optimizer.state[weight]
        tensors[f"now/{name}"] = weight.detach()
        # Weights without a gradient (a switched-off modulator) have no moments.
        tensors |= {f"{key}/{name}": state[key] for key in ("exp_avg", "exp_avg_sq", "step") if key in state}
    header = {"identity": identity, "episode": str(episode), "best_score": repr(best_score)}
    write_bytes(path, save(tensors, metadata={"schema": CHECKPOINT_SCHEMA, **header}))


def _load(
    path: Path, identity: str, weights: MetaWeights, optimizer: torch.optim.Adam
) -> tuple[int, float, MetaWeights]:
    """Puts a checkpoint into ``weights`` and ``optimizer``; gives episode, best score and best weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SchemaError(f"cannot read the checkpoint {path}: {error}") from error
    check_schema(header, CHECKPOINT_SCHEMA, source=path)
    if header.get("identity") != identity:
        raise PredictorError(
            "this checkpoint is of a training on other data, with other settings or another seed",
            field="checkpoint",
            value=str(path),
            hint="Name another file, or delete it.",
        )
    for name, weight in weights.flat().items():
        weight.data.copy_(tensors[f"now/{name}"])
        moments = {
            key: tensors[f"{key}/{name}"] for key in ("exp_avg", "exp_avg_sq", "step") if f"{key}/{name}" in tensors
        }
        if moments:
            optimizer.state[weight] = moments
    best = MetaWeights.from_flat(
        {key.removeprefix("best/"): tensor for key, tensor in tensors.items() if key.startswith("best/")}
    )
    return int(header["episode"]), float(header["best_score"]), best
