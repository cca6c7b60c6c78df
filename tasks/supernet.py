"""Training of a supernet: one set of weights for all networks of a space; resumable, in one or several processes.

All randomness comes from (seed, epoch) and (seed, step), so that a training that goes on from the checkpoint of any
epoch repeats an undisturbed one to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import SchemaError, TaskError
from ..records.shared_training import SharedTraining
from ..search_spaces import SearchSpace
from ..search_spaces.elastic import ElasticModel
from ..search_spaces.extremes import largest, smallest
from .base import Progress, StopTraining
from .checkpoint import TrainingState, load_state, save_state
from .optimizer_state import optimizer_state, restore_optimizer, under
from .parallel import Processes, run_in_processes
from .torch_state import derived_seed, seeded
from .training import WeightAverage, averaged, make_optimizer
from .training_data import Batch, TrainingData
from .training_settings import TrainingSettings
from .weight_sharing.batch_norm import calibration_batches, recalibrated
from .weight_sharing.choice_counts import ChoiceCounts
from .weight_sharing.rule import TrainingRule
from .weight_sharing.step import Teacher, take_step

ENDS = {"largest": largest, "smallest": smallest}
"""The networks that are scored after each epoch."""


class SupernetTrainer:
    """One training of one supernet.

    Args:
        model: Trained in place; in evaluation mode afterwards, with the largest network selected.
        space: Whose networks the model holds.
        data: The task's examples; only its validation split is scored.
        settings: The recipe; its schedule of rates spans all epochs, or a phase of the rule.
        rule: Which networks learn what at each step.
        epochs: From 1.
        seed: Of order, augmentation, dropout and which networks are drawn.
        identity: What the training is, as JSON, beside rule, epochs and seed.
        processes: Share each batch, with gradients added over them (torch.distributed, gloo).
        calibration_batches: From which batch norm is estimated anew before a network is scored.
    """

    def __init__(
        self,
        model: ElasticModel,
        space: SearchSpace,
        data: TrainingData,
        settings: TrainingSettings,
        rule: TrainingRule,
        *,
        epochs: int,
        seed: int,
        identity: Mapping[str, Any],
        processes: int = 1,
        calibration_batches: int = 8,
    ) -> None:
        for field, value in (
            ("epochs", epochs),
            ("processes", processes),
            ("calibration_batches", calibration_batches),
        ):
            if value < 1:
                raise TaskError("out of range", field=f"quality.{field}", value=value, allowed="from 1")
        derived_seed(seed)
        self.model, self.space, self.settings, self.rule = model, space, settings, rule
        self.data = data.for_steps(epochs * data.batches_per_epoch)
        self.epochs, self.seed, self.processes = epochs, seed, processes
        self.calibration_batches = calibration_batches
        self.identity = {**identity, "rule": rule.to_dict(), "epochs": epochs, "seed": seed}

    def run(self, checkpoint: Path | None = None, progress: Progress | None = None) -> SharedTraining:
        """Trains to the end, going on from ``checkpoint`` if it holds an epoch.

        Args:
            checkpoint: A folder in which each finished epoch is saved.
            progress: Called with (epochs, the largest network's metric) after each epoch; may raise
                :class:`StopTraining`.

        Raises:
            TaskError: If the loss diverges, the model does not fit the task, ``checkpoint`` holds another training,
                or a process died.
        """
        own = partial(self._work, checkpoint=checkpoint, progress=progress)
        result: SharedTraining = run_in_processes(self.processes, own, partial(self._work, checkpoint=checkpoint))
        return result

    def _work(
        self, processes: Processes, checkpoint: Path | None = None, progress: Progress | None = None
    ) -> SharedTraining:
        session = _Session(self, processes)
        state = load_state(checkpoint, self.identity) if checkpoint is not None else None
        if state is not None:
            session.restore(state)
        processes.sum(0.0)  # nobody writes the next checkpoint before everybody has read this one
        stopped = False
        while session.epoch < self.epochs and not stopped:
            session.run_epoch()
            if processes.is_first:
                if checkpoint is not None:
                    save_state(checkpoint, session.state())
                stopped = session.report(progress) or session.out_of_time()
            stopped = processes.agreed(stopped)
        return session.finish()


class _Session:
    """One process's run of a trainer: everything that changes."""

    def __init__(self, trainer: SupernetTrainer, processes: Processes) -> None:
        self._trainer, self._processes = trainer, processes
        self._steps_per_epoch = trainer.data.batches_per_epoch
        self._total_steps = trainer.epochs * self._steps_per_epoch
        self._schedule = trainer.rule.schedule(trainer.space, self._total_steps, trainer.seed)
        self._ends = {name: trainer.space.config(end(trainer.space)) for name, end in ENDS.items()}
        self._parameters = [p for p in trainer.model.parameters() if p.requires_grad]
        self._start_optimizer()
        self._teacher: nn.Module | None = None
        self._counts = ChoiceCounts(trainer.space)
        self._calibration: Sequence[Batch] | None = None
        self.epoch, self._step, self._networks, self._seconds = 0, 0, 0, 0.0
        self._curves: dict[str, list[float]] = {name: [] for name in ENDS}
        self._losses: list[float] = []

    def _start_optimizer(self) -> None:
        model, settings = self._trainer.model, self._trainer.settings
        self._optimizer = make_optimizer(model, settings, fused=True)
        self._average = WeightAverage(model, settings.ema_decay) if settings.ema_decay is not None else None

    # ---- Training ---------------------------------------------------------------------------

    def run_epoch(self) -> None:
        start = time.perf_counter()
        trainer, processes = self._trainer, self._processes
        loss = 0.0
        trainer.model.train()
        own = (processes.rank,) if processes.rank else ()  # dropout draws other numbers in each process
        with (
            seeded(derived_seed(trainer.seed, self.epoch, 1, *own)),
            torch.enable_grad(),
            processes.batch_norm_over_all(),
        ):
            for batch in islice(trainer.data.batches(trainer.seed, self.epoch), self._steps_per_epoch):
                loss += self._train_step(batch)
        self._losses.append(processes.sum(loss) / self._steps_per_epoch)
        self.epoch += 1
        if processes.is_first:
            self._score()
        self._seconds += time.perf_counter() - start

    def _train_step(self, batch: Batch) -> float:
        trainer, processes = self._trainer, self._processes
        first, end = self._schedule.period(self._step) or (0, self._total_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = trainer.settings.lr_at(self._step - first, end - first)
        if self._step == self._schedule.teacher_step:
            self._teacher = self._frozen_teacher()
        if self._step == self._schedule.sort_step:
            trainer.model.sort_channels()
            self._start_optimizer()
        if processes.count > 1:
            batch = trainer.data.part(batch, processes.rank, processes.count)
        self._optimizer.zero_grad(set_to_none=True)
        lessons = self._schedule.lessons(self._step)
        teacher: Teacher = "first" if self._schedule.teacher_is_first else self._teacher
        loss = take_step(trainer.model, trainer.space, trainer.data, batch, lessons, teacher, processes)
        processes.sum_gradients(self._parameters)
        if trainer.settings.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, trainer.settings.max_grad_norm)
        self._optimizer.step()
        trainer.data.after_step(trainer.model)
        self._step += 1
        self._networks += len(lessons)
        for lesson in lessons:
            self._counts.add(lesson.genotype)
        if self._average is not None:
            self._average.update(trainer.model, self._step)
        return loss

    def _frozen_teacher(self) -> nn.Module:
        with seeded(0):
            teacher = self._trainer.model.extract(self._ends["largest"])
        return teacher.requires_grad_(False).eval()

    def _score(self) -> None:
        """The metric of both ends of the space, each with batch norm of its own."""
        trainer = self._trainer
        if self._calibration is None:
            self._calibration = calibration_batches(trainer.data, trainer.calibration_batches, trainer.seed)
        for name, config in self._ends.items():
            with averaged(trainer.model, self._average), seeded(0):
                network = trainer.model.extract(config)
            with recalibrated(network, trainer.data, self._calibration):
                self._curves[name].append(float(trainer.data.score(network)[trainer.data.metric]))

    # ---- Ending -----------------------------------------------------------------------------

    def report(self, progress: Progress | None) -> bool:
        """Whether the callback asked to stop."""
        if progress is None:
            return False
        try:
            progress(float(self.epoch), self._curves["largest"][-1])
        except StopTraining:
            return True
        return False

    def out_of_time(self) -> bool:
        limit = self._trainer.settings.time_limit_s
        return limit is not None and self._seconds >= limit

    def finish(self) -> SharedTraining:
        trainer = self._trainer
        if self._average is not None:
            self._average.copy_to(trainer.model)
        trainer.model.select(self._ends["largest"])
        trainer.model.eval()
        return SharedTraining(
            rule=trainer.rule.name,
            epochs=self.epoch,
            steps=self._step,
            networks=self._networks,
            seconds=self._seconds,
            metric=trainer.data.metric,
            curves={name: tuple(curve) for name, curve in self._curves.items()},
            losses=tuple(self._losses),
            choices=self._counts.rows(),
            identity=trainer.identity,
        )

    # ---- Checkpoints ------------------------------------------------------------------------

    def state(self) -> TrainingState:
        tensors = {f"model/{name}": tensor for name, tensor in self._trainer.model.state_dict().items()}
        if self._average is not None:
            tensors |= {f"average/{name}": tensor for name, tensor in self._average.tensors.items()}
        if self._teacher is not None:
            tensors |= {f"teacher/{name}": tensor for name, tensor in self._teacher.state_dict().items()}
        optimizer, scalars = optimizer_state(self._optimizer)
        history = {**{f"curve/{name}": curve for name, curve in self._curves.items()}, "losses": self._losses}
        tensors |= {f"history/{name}": torch.tensor(values, dtype=torch.float64) for name, values in history.items()}
        tensors["history/choices"] = torch.from_numpy(self._counts.array)
        return TrainingState(
            identity=self._trainer.identity,
            epoch=self.epoch,
            step=self._step,
            seconds=self._seconds,
            curve=tuple(self._curves["largest"]),
            metrics={name: curve[-1] for name, curve in self._curves.items()},
            tensors=tensors | optimizer,
            scalars={**scalars, "networks": self._networks},
        )

    def restore(self, state: TrainingState) -> None:
        try:
            self._trainer.model.load_state_dict(under(state.tensors, "model/"))
            if self._average is not None:
                self._average.load(under(state.tensors, "average/"))
            if teacher := under(state.tensors, "teacher/"):
                self._teacher = self._frozen_teacher()
                self._teacher.load_state_dict(teacher)
            restore_optimizer(self._optimizer, state.tensors, state.scalars)
            self._curves = {name: state.tensors[f"history/curve/{name}"].tolist() for name in ENDS}
            self._losses = state.tensors["history/losses"].tolist()
            self._counts.array[:] = state.tensors["history/choices"].numpy()
            self._networks = int(state.scalars["networks"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise SchemaError(
                f"the checkpoint does not fit this supernet: {str(error).splitlines()[0]}",
                hint="It belongs to another space; use another folder.",
            ) from error
        self.epoch, self._step, self._seconds = state.epoch, state.step, state.seconds
