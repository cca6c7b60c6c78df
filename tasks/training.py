"""The training loop of one model on any task's data: deterministic, resumable.

All randomness of an epoch (order, augmentation, dropout) comes from (seed, epoch), so that a
training resumed from the checkpoint of any epoch repeats an undisturbed one to the bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import SchemaError, TaskError
from ..records import Evaluation
from .base import Progress, StopTraining
from .checkpoint import TrainingState, load_state, save_state
from .optimizer_state import optimizer_state, restore_optimizer, under
from .torch_state import derived_seed, seeded
from .training_data import Batch, TrainingData
from .training_settings import TrainingSettings


class Trainer:
    """One training of one model; see ``Task.train`` for the promises.

    Args:
        model: Trained in place; in evaluation mode afterwards.
        data: The task's examples; only its validation split is scored.
        settings: The recipe.
        budget: Epochs; a fraction is a part of the last epoch.
        seed: Of order, augmentation and dropout.
        identity: What the training is, as JSON, beside model, budget and seed.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        settings: TrainingSettings,
        *,
        budget: float,
        seed: int,
        identity: Mapping[str, Any],
    ) -> None:
        if not (math.isfinite(budget) and budget > 0):
            raise TaskError("not a budget", field="budget", value=budget, allowed="a positive number of epochs")
        derived_seed(seed)
        self.model, self.settings = model, settings
        self.budget, self.seed = float(budget), seed
        self.identity = {**identity, "budget": self.budget, "seed": seed}
        self._steps_per_epoch = data.batches_per_epoch
        self._total_steps = max(1, round(self.budget * self._steps_per_epoch))
        self._epochs = math.ceil(self._total_steps / self._steps_per_epoch)
        self.data = data.for_steps(self._total_steps)
        self._optimizer = make_optimizer(model, settings)
        self._average = WeightAverage(model, settings.ema_decay) if settings.ema_decay is not None else None
        self._epoch, self._step, self._seconds = 0, 0, 0.0
        self._curve: list[float] = []
        self._metrics: dict[str, float] = {}

    def run(self, checkpoint: Path | None = None, progress: Progress | None = None) -> Evaluation:
        """Trains to the end of the budget, going on from ``checkpoint`` if it holds an epoch."""
        state = load_state(checkpoint, self.identity) if checkpoint is not None else None
        if state is not None:
            self._restore(state)
        stopped = False
        while self._epoch < self._epochs and not stopped and not self._out_of_time():
            self._run_epoch()
            if checkpoint is not None:
                save_state(checkpoint, self._state())
            stopped = self._report(progress)
        if self._average is not None:
            self._average.copy_to(self.model)
        self.model.eval()
        return Evaluation(
            quality=self._curve[-1],
            metrics=self._metrics,
            budget=min(self.budget, self._step / self._steps_per_epoch),
            cost_s=self._seconds,
            seed=self.seed,
            curve=tuple(self._curve),
        )

    def _run_epoch(self) -> None:
        start = time.perf_counter()
        self._train_epoch()
        with averaged(self.model, self._average):
            self._metrics = dict(self.data.score(self.model, "validation"))
        self._curve.append(self._metrics[self.data.metric])
        self._epoch += 1
        self._seconds += time.perf_counter() - start

    def _out_of_time(self) -> bool:
        limit = self.settings.time_limit_s
        return limit is not None and self._epoch > 0 and self._seconds >= limit

    def _report(self, progress: Progress | None) -> bool:
        """Whether the callback asked to stop."""
        if progress is None:
            return False
        try:
            progress(min(self.budget, self._step / self._steps_per_epoch), self._curve[-1])
        except StopTraining:
            return True
        return False

    def _train_epoch(self) -> None:
        steps = min(self._steps_per_epoch, self._total_steps - self._step)
        self.model.train()
        # Dropout and the like draw from torch's global generator.
        with seeded(derived_seed(self.seed, self._epoch, 1)), torch.enable_grad():
            for batch in islice(self.data.batches(self.seed, self._epoch), steps):
                self._train_step(batch)

    def _train_step(self, batch: Batch) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.lr_at(self._step, self._total_steps)
        loss = self.data.training_loss(self.model, batch)
        if not math.isfinite(loss.item()):
            raise TaskError(
                f"training diverged: the loss is {loss.item()} in epoch {self._epoch + 1}",
                field="task.training.lr",
                value=self.settings.lr,
                hint="Try a smaller rate or task.training.max_grad_norm=1.",
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.settings.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self._optimizer.step()
        self.data.after_step(self.model)
        self._step += 1
        if self._average is not None:
            self._average.update(self.model, self._step)

    def _state(self) -> TrainingState:
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self._average is not None:
            tensors |= {f"average/{name}": tensor for name, tensor in self._average.tensors.items()}
        optimizer, scalars = optimizer_state(self._optimizer)
        tensors |= optimizer
        return TrainingState(
            identity=self.identity,
            epoch=self._epoch,
            step=self._step,
            seconds=self._seconds,
            curve=tuple(self._curve),
            metrics=self._metrics,
            tensors=tensors,
            scalars=scalars,
        )

    def _restore(self, state: TrainingState) -> None:
        try:
            self.model.load_state_dict(under(state.tensors, "model/"))
            if self._average is not None:
                self._average.load(under(state.tensors, "average/"))
            restore_optimizer(self._optimizer, state.tensors, state.scalars)
        except (RuntimeError, ValueError, KeyError) as error:
            raise SchemaError(
                f"the checkpoint does not fit this model: {str(error).splitlines()[0]}",
                hint="It belongs to another architecture; use another folder.",
            ) from error
        self._epoch, self._step, self._seconds = state.epoch, state.step, state.seconds
        self._curve, self._metrics = list(state.curve), dict(state.metrics)


class WeightAverage:
    """Exponential moving average of weights and norm statistics (as in timm's ModelEma).

    The decay rises from 0.1 with the steps, so that a short training is not held back by its
    random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)

    def copy_to(self, model: nn.Module) -> None:
        model.load_state_dict(self.tensors)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        if set(tensors) != set(self.tensors):
            raise KeyError("averaged weights are missing")
        self.tensors = dict(tensors)


@contextmanager
def averaged(model: nn.Module, average: WeightAverage | None) -> Iterator[None]:
    """``model`` with its averaged weights inside, with its own outside; None changes nothing."""
    if average is None:
        yield
        return
    own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    average.copy_to(model)
    try:
        yield
    finally:
        model.load_state_dict(own)


def make_optimizer(model: nn.Module, settings: TrainingSettings, *, fused: bool = False) -> torch.optim.Optimizer:
    """AdamW or SGD; only tensors of two or more dimensions decay. A ``fused`` AdamW is faster with many
    parameters, and rounds otherwise."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise TaskError("the model has no parameters to train")
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    return torch.optim.AdamW(groups, lr=settings.lr, fused=fused or None)  # None: as torch thinks best
