"""Replacements of a trained model's modules learn from it, all at once and each by itself.

Bercovich et al. (Puzzle, 2411.19146, section 3): each replacement is fed what the original gets in the frozen parent,
and learns to answer as the original does. Gradients of different replacements do not meet, so that one run of the
parent a batch serves all of them.

All randomness comes from (seed, epoch), so that a training that goes on from the checkpoint of any epoch repeats an
undisturbed one to the bit.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import SchemaError, TaskError
from ..records.shared_training import SharedTraining
from ..search_spaces.elastic.replaceable import ReplaceableModel
from .base import Progress, StopTraining
from .checkpoint import TrainingState, load_state, save_state
from .optimizer_state import optimizer_state, restore_optimizer, under
from .torch_state import derived_seed, seeded
from .training import make_optimizer
from .training_data import Batch, TrainingData
from .training_settings import TrainingSettings

RULE = "blockwise"
SMALLEST_POWER = 1e-12
"""Of an original's answers, to which errors are relative."""

Score = Callable[[], Mapping[str, float]]
"""The metric of some whole networks by name, as they are now."""


class BlockwiseDistillation:
    """One training of all replacements of a model.

    Args:
        model: Its replacements are trained in place; everything else stays as it is.
        data: The task's examples.
        settings: The recipe. Weights are not averaged.
        epochs: From 1.
        seed: Of the order of examples.
        identity: What the training is, as JSON, beside epochs and seed.
        score: Called after each epoch.
    """

    def __init__(
        self,
        model: ReplaceableModel,
        data: TrainingData,
        settings: TrainingSettings,
        *,
        epochs: int,
        seed: int,
        identity: Mapping[str, Any],
        score: Score,
    ) -> None:
        derived_seed(seed)
        self.model, self.settings, self.epochs, self.seed = model, settings, epochs, seed
        self._steps_per_epoch = data.batches_per_epoch
        self._total_steps = epochs * self._steps_per_epoch
        self.data = data.for_steps(self._total_steps)
        self.identity = {**identity, "epochs": epochs, "seed": seed}
        self._score = score
        self._places = model.places()
        self._learners = {
            f"{place}/{name}": module
            for place, modules in self._places.items()
            for name, module in modules.replacements.items()
        }
        model.requires_grad_(False)
        for module in self._learners.values():
            module.requires_grad_(True)
        self._optimizer = make_optimizer(model, settings, fused=True)
        self._epoch, self._step, self._seconds = 0, 0, 0.0
        self._errors: dict[str, list[float]] = {name: [] for name in self._learners}
        self._curves: dict[str, list[float]] = {}
        self._sums: dict[str, float] = {}

    def run(self, checkpoint: Path | None = None, progress: Progress | None = None) -> SharedTraining:
        """Trains to the end, going on from ``checkpoint`` if it holds an epoch.

        Args:
            checkpoint: A folder in which each finished epoch is saved.
            progress: Called with (epochs, share of the originals' answers that is explained) after each epoch; may
                raise :class:`StopTraining`.

        Raises:
            TaskError: If a loss diverges, or ``checkpoint`` holds another training.
        """
        state = load_state(checkpoint, self.identity) if checkpoint is not None else None
        if state is not None:
            self._restore(state)
        stopped = False
        while self._epoch < self.epochs and not stopped:
            self._run_epoch()
            if checkpoint is not None:
                save_state(checkpoint, self._state())
            stopped = self._report(progress) or self._out_of_time()
        self.model.eval()
        return self._record()

    # ---- Training ---------------------------------------------------------------------------

    def _run_epoch(self) -> None:
        start = time.perf_counter()
        self._sums = dict.fromkeys(self._learners, 0.0)
        self.model.eval()
        for module in self._learners.values():
            module.train()
        with seeded(derived_seed(self.seed, self._epoch, 1)), self._listening():
            for batch in islice(self.data.batches(self.seed, self._epoch), self._steps_per_epoch):
                self._train_step(batch)
        for name, total in self._sums.items():
            self._errors[name].append(total / self._steps_per_epoch)
        self.model.eval()
        for name, metric in self._score().items():
            self._curves.setdefault(name, []).append(metric)
        self._epoch += 1
        self._seconds += time.perf_counter() - start

    def step_seconds(self, batches: Sequence[Batch]) -> float:
        """Median seconds of a step, of which these are taken; the replacements are changed by them."""
        seconds = []
        self._sums = dict.fromkeys(self._learners, 0.0)
        with self._listening():
            for batch in batches:
                start = time.perf_counter()
                self._train_step(batch)
                seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    def _train_step(self, batch: Batch) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.lr_at(self._step, self._total_steps)
        self._optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.data.logits(self.model, batch)
        if self.settings.max_grad_norm is not None:
            for module in self._learners.values():
                nn.utils.clip_grad_norm_(module.parameters(), self.settings.max_grad_norm)
        self._optimizer.step()
        self.data.after_step(self.model)
        self._step += 1

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """While the parent runs, replacements learn from every original that runs."""
        handles = [
            place.original.register_forward_hook(self._lesson(name), with_kwargs=True)
            for name, place in self._places.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _lesson(self, place: str) -> Callable[..., None]:
        def learn(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], answer: torch.Tensor) -> None:
            for name, replacement in self._places[place].replacements.items():
                with torch.enable_grad():
                    error = relative_error(replacement(*inputs, **named), answer)
                    if error.requires_grad:  # A replacement may have nothing to learn, such as none at all.
                        error.backward()
                self._count(f"{place}/{name}", float(error))

        return learn

    def _count(self, learner: str, error: float) -> None:
        if not math.isfinite(error):
            raise TaskError(
                f"{learner} diverged: its error is {error} in epoch {self._epoch + 1}",
                field="quality.training.lr",
                value=self.settings.lr,
                hint="Try a smaller rate or quality.training.max_grad_norm=1.",
            )
        self._sums[learner] += error

    # ---- Ending -----------------------------------------------------------------------------

    def _report(self, progress: Progress | None) -> bool:
        """Whether the callback asked to stop."""
        if progress is None:
            return False
        errors = [errors[-1] for errors in self._errors.values()]
        try:
            progress(float(self._epoch), 1.0 - sum(errors) / len(errors))
        except StopTraining:
            return True
        return False

    def _out_of_time(self) -> bool:
        limit = self.settings.time_limit_s
        return limit is not None and self._seconds >= limit

    def _record(self) -> SharedTraining:
        by_epoch = zip(*self._errors.values(), strict=True)
        return SharedTraining(
            rule=RULE,
            epochs=self._epoch,
            steps=self._step,
            networks=self._step,
            seconds=self._seconds,
            metric=self.data.metric,
            curves={name: tuple(curve) for name, curve in self._curves.items()},
            losses=tuple(sum(errors) / len(errors) for errors in by_epoch),
            errors={name: tuple(errors) for name, errors in self._errors.items()},
            identity=self.identity,
        )

    # ---- Checkpoints ------------------------------------------------------------------------

    def _state(self) -> TrainingState:
        tensors = {
            f"learner/{name}/{part}": tensor
            for name, module in self._learners.items()
            for part, tensor in module.state_dict().items()
        }
        optimizer, scalars = optimizer_state(self._optimizer)
        history = {f"error/{name}": errors for name, errors in self._errors.items()}
        history |= {f"curve/{name}": curve for name, curve in self._curves.items()}
        tensors |= {f"history/{name}": torch.tensor(values, dtype=torch.float64) for name, values in history.items()}
        return TrainingState(
            identity=self.identity,
            epoch=self._epoch,
            step=self._step,
            seconds=self._seconds,
            curve=(),
            metrics={},
            tensors=tensors | optimizer,
            scalars=scalars,
        )

    def _restore(self, state: TrainingState) -> None:
        try:
            for name, module in self._learners.items():
                module.load_state_dict(under(state.tensors, f"learner/{name}/"))
                self._errors[name] = state.tensors[f"history/error/{name}"].tolist()
            restore_optimizer(self._optimizer, state.tensors, state.scalars)
        except (RuntimeError, ValueError, KeyError) as error:
            raise SchemaError(
                f"the checkpoint does not fit these replacements: {str(error).splitlines()[0]}",
                hint="It belongs to another space; use another folder.",
            ) from error
        curves = under(state.tensors, "history/curve/")
        self._curves = {name: values.tolist() for name, values in curves.items()}
        self._epoch, self._step, self._seconds = state.epoch, state.step, state.seconds


def relative_error(answer: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the mean square of what is wanted (Puzzle's loss): 0 where the answers are equal, 1 for
    an answer of zeros."""
    error: torch.Tensor = (answer - wanted).square().mean() / wanted.square().mean().clamp_min(SMALLEST_POWER)
    return error
