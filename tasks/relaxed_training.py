"""Differentiable search: weights and the probabilities of all choices are trained together; resumable.

All randomness comes from (seed, epoch) and (seed, step), so that a search that goes on from the checkpoint of any epoch
repeats an undisturbed one to the bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ..errors import SchemaError, TaskError
from ..schema import Record
from ..search_spaces import SearchSpace
from ..search_spaces.relaxed import RelaxedModel
from .base import Progress, StopTraining
from .checkpoint import TrainingState, load_state, save_state
from .gates import RELAXATIONS, drawn_choice, log_probabilities, one_path
from .optimizer_state import PREFIX, optimizer_state, restore_optimizer, under
from .price import Price
from .torch_state import derived_seed, seeded
from .training import make_optimizer
from .training_data import Batch, TrainingData
from .training_settings import TrainingSettings

ARCHITECTURE = "architecture_"
SAMPLED = "sampled"
"""In place of a relaxation: whole networks are drawn and compared."""
GATES, DRAWS = 2, 3
"""Streams of random numbers of a step."""


@dataclass(frozen=True)
class RelaxedSettings:
    """How weights and probabilities are trained.

    Args:
        relaxation: A key of :data:`~.gates.RELAXATIONS`; or ``sampled``: networks are drawn and run as they are, and
            the probabilities learn from their losses by the score function, each against the mean of the others
            (ProxylessNAS, 1812.00332, Section 3.3.2; Kool and others' leave-one-out baseline).
        level: ``bilevel``: probabilities learn on one half of the train split, weights on the other (DARTS, first
            order); ``single``: both from each batch.
        epochs: In all.
        warmup_epochs: Of these, the first ones, in which weights learn under equal probabilities.
        lr: Of the logits (Adam, betas 0.5 and 0.999, as DARTS).
        weight_decay: Of the logits.
        temperature: Of Gumbel and softmax: the first and the last, geometrically annealed.
        networks: Drawn at a step, where the relaxation is ``sampled``.
    """

    relaxation: str = "two_paths"
    level: str = "bilevel"
    epochs: int = 20
    warmup_epochs: int = 5
    lr: float = 0.02
    weight_decay: float = 0.001
    temperature: tuple[float, float] = (1.0, 1.0)
    networks: int = 4


@dataclass(frozen=True)
class RelaxedResult(Record):
    """What a differentiable search ended with.

    Args:
        probabilities: Of the choices of each decision, in the space's order.
        losses: The task's mean loss of each epoch in which probabilities learnt, under the mixture.
        values: The mean predicted metric of each of these epochs; empty without a price.
        multipliers: The weight of the price after each of these epochs.
        seconds: In all sessions.
        identity: What the search was, as JSON.
    """

    SCHEMA: ClassVar[str] = "gnomon.differentiable/1"

    probabilities: tuple[tuple[float, ...], ...]
    losses: tuple[float, ...]
    values: tuple[float, ...]
    multipliers: tuple[float, ...]
    seconds: float
    identity: Mapping[str, Any] = field(default_factory=dict)


class RelaxedTrainer:
    """One differentiable search.

    Args:
        model: Trained in place.
        space: Of the model.
        data: The task's examples; only the train split is used.
        recipe: Of the weights; its schedule of rates spans all epochs.
        settings: Of the probabilities.
        price: What latency costs; None for nothing.
        seed: Of order, augmentation and gates.
        identity: What the search is, as JSON, beside settings and seed.

    Raises:
        TaskError: If the data cannot be halved, which ``bilevel`` needs.
    """

    def __init__(
        self,
        model: RelaxedModel,
        space: SearchSpace,
        data: TrainingData,
        recipe: TrainingSettings,
        settings: RelaxedSettings,
        price: Price | None,
        *,
        seed: int,
        identity: Mapping[str, Any],
    ) -> None:
        self.model, self.space, self.recipe, self.settings, self.price = model, space, recipe, settings, price
        self.seed = seed
        is_bilevel = settings.level == "bilevel"
        self._data: TrainingData = data
        self._held_out: TrainingData | None = None
        if is_bilevel:
            self._data, self._held_out = data.halves()
        halves = [self._data] if self._held_out is None else [self._data, self._held_out]
        self._steps_per_epoch = min(half.batches_per_epoch for half in halves)
        self._total = settings.epochs * self._steps_per_epoch
        plain = {**asdict(settings), "temperature": list(settings.temperature)}
        self.identity = {**identity, "settings": plain, "seed": seed}
        self.logits = [nn.Parameter(torch.zeros(int(k))) for k in space.algebra.cardinalities]
        self._optimizer = make_optimizer(model, recipe, fused=True)
        self._choices = torch.optim.Adam(
            self.logits, lr=settings.lr, betas=(0.5, 0.999), weight_decay=settings.weight_decay
        )
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._epoch, self._step, self._seconds = 0, 0, 0.0
        self._losses: list[float] = []
        self._values: list[float] = []
        self._multipliers: list[float] = []

    def run(self, checkpoint: Path | None = None, progress: Progress | None = None) -> RelaxedResult:
        """Searches to the end, going on from ``checkpoint`` if it holds an epoch.

        Args:
            checkpoint: A folder in which each finished epoch is saved.
            progress: Called with (epochs, minus the task's loss under the mixture) after each epoch.

        Raises:
            TaskError: If the loss diverges, or ``checkpoint`` holds another search.
        """
        state = load_state(checkpoint, self.identity) if checkpoint is not None else None
        if state is not None:
            self._restore(state)
        stopped = False
        while self._epoch < self.settings.epochs and not stopped:
            self._run_epoch()
            if checkpoint is not None:
                save_state(checkpoint, self._state())
            stopped = self._report(progress)
        return self.result()

    def result(self) -> RelaxedResult:
        """Where the search stands."""
        return RelaxedResult(
            probabilities=tuple(tuple(p.tolist()) for p in self._probabilities(detach=True)),
            losses=tuple(self._losses),
            values=tuple(self._values),
            multipliers=tuple(self._multipliers),
            seconds=self._seconds,
            identity=self.identity,
        )

    # ---- Steps ------------------------------------------------------------------------------

    def _run_epoch(self) -> None:
        start = time.perf_counter()
        self.model.train()
        learns = self._epoch >= self.settings.warmup_epochs
        losses, values = [], []
        held_out = iter(()) if self._held_out is None else self._held_out.batches(self.seed + 1, self._epoch)
        with seeded(derived_seed(self.seed, self._epoch, 1)), torch.enable_grad():
            for batch in islice(self._data.batches(self.seed, self._epoch), self._steps_per_epoch):
                self._set_rate()
                if self._held_out is None:
                    loss, value = self._joint_step(batch, learns=learns)
                else:
                    loss, value = self._choice_step(next(held_out)) if learns else (math.nan, math.nan)
                    self._weight_step(batch)
                losses.append(loss)
                values.append(value)
                self._step += 1
        self._epoch += 1
        if learns:
            self._losses.append(float(np.mean(losses)))
            if self.price is not None:
                self._values.append(float(np.mean(values)))
                self._multipliers.append(self.price.multiplier)
        self._seconds += time.perf_counter() - start

    def _set_rate(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(self._step, self._total)

    def _weight_step(self, batch: Batch) -> None:
        """The weights learn; of ``two_paths`` one is run."""
        generator = self._generator(GATES)
        one = self.settings.relaxation in ("two_paths", SAMPLED)
        logits = [p.detach() for p in self.logits]
        self.model.mix(
            [
                one_path(log_probabilities(logits, group), generator) if one else self._gate(logits, group, generator)
                for group in self.model.groups
            ]
        )
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._data.loss(self._data.logits(self.model, batch), batch)
        self._checked(loss)
        loss.backward()
        self._update_weights()

    def _choice_step(self, batch: Batch) -> tuple[float, float]:
        """The probabilities learn; (the task's loss, the metric)."""
        task_loss, loss, value = self._mixed_loss(batch)
        gradients = torch.autograd.grad(loss, self.logits, allow_unused=True)
        self._update_choices(gradients, value)
        return task_loss, value

    def _joint_step(self, batch: Batch, *, learns: bool) -> tuple[float, float]:
        """Both learn from the same batch and mixture."""
        self._optimizer.zero_grad(set_to_none=True)
        for p in self.logits:
            p.grad = None
        task_loss, loss, value = self._mixed_loss(batch)
        loss.backward()
        if learns:
            self._update_choices([p.grad for p in self.logits], value)
        self._update_weights()
        return task_loss, value

    def _mixed_loss(self, batch: Batch) -> tuple[float, torch.Tensor, float]:
        """The task's loss under fresh gates; that and the price; the metric (0 without a price)."""
        generator = self._generator(DRAWS)
        if self.settings.relaxation == SAMPLED:
            task_loss, loss = self._compared(batch, generator)
        else:
            self.model.mix([self._gate(self.logits, group, generator) for group in self.model.groups])
            loss = self._data.loss(self._data.logits(self.model, batch), batch)
            task_loss = self._checked(loss)
        value = 0.0
        if self.price is not None:
            rng = np.random.default_rng([self.seed, self._step, DRAWS])
            paid, value = self.price.loss(self._probabilities(), rng)
            loss = loss + paid
        return task_loss, loss, value

    def _compared(self, batch: Batch, generator: torch.Generator) -> tuple[float, torch.Tensor]:
        """Mean loss of drawn networks, and a scalar with the gradient of its expectation in the logits (and, where
        weights learn from the same batch, its own gradient in the weights)."""
        log_p = [log_probabilities(self.logits, group) for group in self.model.groups]
        losses, chances = [], []
        for _ in range(self.settings.networks):
            chosen = [drawn_choice(own, generator) for own in log_p]
            pairs = list(zip(chosen, log_p, strict=True))
            self.model.mix([nn.functional.one_hot(torch.tensor(i), len(own)).float() for i, own in pairs])
            with torch.set_grad_enabled(self._held_out is None):
                losses.append(self._data.loss(self._data.logits(self.model, batch), batch))
            self._checked(losses[-1])
            chances.append(torch.stack([own[i] for i, own in pairs]).sum())
        found = torch.stack(losses)
        plain = found.detach()
        others = (plain.sum() - plain) / (len(plain) - 1)
        score = ((plain - others) * torch.stack(chances)).mean()
        return float(plain.mean()), found.mean() + score

    def _update_choices(self, gradients: Sequence[torch.Tensor | None], value: float) -> None:
        for p, gradient in zip(self.logits, gradients, strict=True):
            p.grad = gradient
        self._choices.step()
        if self.price is not None:
            self.price.update(value)

    def _update_weights(self) -> None:
        if self.recipe.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.recipe.max_grad_norm)
        self._optimizer.step()
        self._data.after_step(self.model)

    def _gate(self, logits: Sequence[torch.Tensor], group: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        return RELAXATIONS[self.settings.relaxation](log_probabilities(logits, group), self._temperature(), generator)

    def _temperature(self) -> float:
        first, last = self.settings.temperature
        return float(first * (last / first) ** (self._step / max(1, self._total - 1)))

    def _probabilities(self, *, detach: bool = False) -> list[torch.Tensor]:
        return [(p.detach() if detach else p).softmax(0) for p in self.logits]

    def _generator(self, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.seed, self._step, stream))

    def _checked(self, loss: torch.Tensor) -> float:
        value = loss.item()
        if not math.isfinite(value):
            raise TaskError(
                f"the search diverged: the loss is {value} at step {self._step}",
                hint="Try a smaller rate, strategy.training.lr, or strategy.training.max_grad_norm=1.",
            )
        return value

    # ---- Checkpoints ------------------------------------------------------------------------

    def _report(self, progress: Progress | None) -> bool:
        if progress is None:
            return False
        try:
            progress(float(self._epoch), -self._losses[-1] if self._losses else 0.0)
        except StopTraining:
            return True
        return False

    def _state(self) -> TrainingState:
        tensors, scalars = optimizer_state(self._optimizer)
        own, own_scalars = optimizer_state(self._choices)
        tensors |= {f"{ARCHITECTURE}{name}": tensor for name, tensor in own.items()}
        tensors |= {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"logits/{i}": p.detach() for i, p in enumerate(self.logits)}
        for name, values in (("losses", self._losses), ("values", self._values), ("multipliers", self._multipliers)):
            tensors[f"history/{name}"] = torch.tensor(values, dtype=torch.float64)
        plain = {**scalars, **{f"{ARCHITECTURE}{name}": value for name, value in own_scalars.items()}}
        if self.price is not None:
            plain["multiplier"] = self.price.multiplier
        return TrainingState(
            identity=self.identity,
            epoch=self._epoch,
            step=self._step,
            seconds=self._seconds,
            curve=(),
            metrics={},
            tensors=tensors,
            scalars=plain,
        )

    def _restore(self, state: TrainingState) -> None:
        try:
            self.model.load_state_dict(under(state.tensors, "model/"))
            restore_optimizer(self._optimizer, state.tensors, state.scalars)
            own, own_scalars = (
                {f"{PREFIX}{name}": value for name, value in under(items, f"{ARCHITECTURE}{PREFIX}").items()}
                for items in (state.tensors, state.scalars)
            )
            restore_optimizer(self._choices, own, own_scalars)
            with torch.no_grad():
                for i, p in enumerate(self.logits):
                    p.copy_(state.tensors[f"logits/{i}"])
            self._losses, self._values, self._multipliers = (
                state.tensors[f"history/{name}"].tolist() for name in ("losses", "values", "multipliers")
            )
            if self.price is not None:
                self.price.multiplier = float(state.scalars["multiplier"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise SchemaError(
                f"the checkpoint does not fit this search: {str(error).splitlines()[0]}",
                hint="It belongs to another space; use another folder.",
            ) from error
        self._epoch, self._step, self._seconds = state.epoch, state.step, state.seconds
