"""What every task promises, as tests."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..errors import GnomonError
from ..records import Evaluation
from ..tasks import Task
from ..tasks.base import StopTraining

if TYPE_CHECKING:
    from torch import nn


class _Killed(BaseException):
    """Stands for a kill: nothing that catches Exception may survive it."""


def without_time(evaluation: Evaluation) -> Evaluation:
    """The evaluation without what may differ between equal trainings."""
    return replace(evaluation, cost_s=0.0)


def weights(model: nn.Module) -> dict[str, bytes]:
    """Every parameter and buffer as bytes, for comparison to the bit."""
    return {name: tensor.detach().cpu().numpy().tobytes() for name, tensor in model.state_dict().items()}


class TaskSuite:
    """Subclass it, give it the fixtures ``task`` and ``model_factory``, and pytest does the rest.

    ``model_factory`` returns a function that makes an untrained model of the task, each time with
    the same weights. Optional fixture: ``other_task``, the same task on other data.
    """

    budget: float = 3.0
    """Budget of a training here; keep data and model small."""

    resumes: bool = True
    """Whether training writes checkpoints; False only for a wrapped function that cannot."""

    @pytest.fixture
    def task(self) -> Task:
        """The task under test."""
        raise NotImplementedError("a TaskSuite needs a fixture `task`")

    @pytest.fixture
    def model_factory(self) -> Callable[[], nn.Module]:
        """Makes an untrained model, each time with the same weights."""
        raise NotImplementedError("a TaskSuite needs a fixture `model_factory`")

    @pytest.fixture
    def other_task(self) -> Task | None:
        """The same task on other data."""
        return None

    def exported(self, task: Task, model: nn.Module, folder: Path) -> Path:
        """The model as ``task.score`` takes it beside a module; for models of several graphs, their folder."""
        return export_onnx(model, task.input_shape, folder / "model.onnx")

    # ---- What it says about itself -----------------------------------------------------------

    def test_shape_labels_and_names(self, task: Task) -> None:
        assert task.name
        assert task.metric
        assert task.input_shape
        assert all(isinstance(side, int) and side > 0 for side in task.input_shape)
        assert len(task.labels) == len(set(task.labels))
        assert all(isinstance(label, str) for label in task.labels)

    def test_identity_and_preprocessing_are_json(self, task: Task) -> None:
        assert json.loads(json.dumps(task.identity())) == task.identity()
        assert json.loads(json.dumps(dict(task.preprocessing))) == dict(task.preprocessing)

    def test_identity_changes_with_the_data(self, task: Task, other_task: Task | None) -> None:
        if other_task is None:
            pytest.skip("no fixture `other_task`")
        assert task.identity() != other_task.identity()

    def test_splits_share_no_example(self, task: Task) -> None:
        splits = {split: task.example_keys(split) for split in ("train", "validation", "test")}
        if any(keys is None for keys in splits.values()):
            pytest.skip("the task does not know its examples")
        every_key = [key for keys in splits.values() for key in keys or ()]
        assert all(splits.values()), "a split is empty"
        assert len(every_key) == len(set(every_key)), "splits share examples, or one holds copies"

    # ---- Training ----------------------------------------------------------------------------

    def test_evaluation_is_valid(self, task: Task, model_factory: Callable[[], nn.Module]) -> None:
        model, calls = model_factory(), []
        before = weights(model)
        evaluation = task.train(
            model, self.budget, seed=3, progress=lambda spent, metric: calls.append((spent, metric))
        )
        assert weights(model) != before, "training must change the model in place"
        assert math.isfinite(evaluation.quality)
        assert evaluation.quality == evaluation.metrics[task.metric] == evaluation.curve[-1]
        assert evaluation.seed == 3
        assert evaluation.budget == self.budget
        assert evaluation.cost_s > 0
        assert all(math.isfinite(value) for value in evaluation.metrics.values())
        assert Evaluation.from_json(evaluation.to_json()) == evaluation
        if calls:
            assert calls[-1] == (evaluation.budget, evaluation.quality)
            assert [spent for spent, _ in calls] == sorted({spent for spent, _ in calls})

    def test_quality_is_the_validation_score_of_the_model(
        self, task: Task, model_factory: Callable[[], nn.Module]
    ) -> None:
        model = model_factory()
        evaluation = task.train(model, self.budget, seed=0)
        assert task.score(model, "validation")[task.metric] == pytest.approx(evaluation.quality, abs=1e-6)

    def test_same_seed_same_result(self, task: Task, model_factory: Callable[[], nn.Module]) -> None:
        first, second, other = model_factory(), model_factory(), model_factory()
        results = [task.train(model, self.budget, seed=5) for model in (first, second)]
        task.train(other, self.budget, seed=6)
        assert without_time(results[0]) == without_time(results[1])
        assert weights(first) == weights(second)
        assert weights(first) != weights(other), "the seed has no effect"

    def test_training_leaves_the_process_as_it_was(self, task: Task, model_factory: Callable[[], nn.Module]) -> None:
        model = model_factory()
        before = process_state()
        task.train(model, self.budget, seed=0)
        task.score(model, "validation")
        assert process_state() == before

    def test_budget_must_be_positive(self, task: Task, model_factory: Callable[[], nn.Module]) -> None:
        with pytest.raises(GnomonError):
            task.train(model_factory(), 0.0, seed=0)

    def test_stopping_early_keeps_what_was_reached(self, task: Task, model_factory: Callable[[], nn.Module]) -> None:
        calls: list[tuple[float, float]] = []

        def stop(spent: float, metric: float) -> None:
            calls.append((spent, metric))
            raise StopTraining

        evaluation = task.train(model_factory(), self.budget, seed=0, progress=stop)
        if not calls:
            pytest.skip("the task reports no progress")
        assert len(calls) == 1
        assert (evaluation.budget, evaluation.quality) == calls[0]

    # ---- Checkpoints -------------------------------------------------------------------------

    def test_resumed_equals_undisturbed(
        self, task: Task, model_factory: Callable[[], nn.Module], tmp_path: Path
    ) -> None:
        self._needs_checkpoints()
        undisturbed = model_factory()
        expected = task.train(undisturbed, self.budget, seed=1)
        spends: list[float] = []

        def kill(spent: float, metric: float) -> None:
            raise _Killed

        with pytest.raises(_Killed):
            task.train(model_factory(), self.budget, seed=1, checkpoint=tmp_path / "c", progress=kill)
        resumed = model_factory()
        found = task.train(
            resumed, self.budget, seed=1, checkpoint=tmp_path / "c", progress=lambda spent, _: spends.append(spent)
        )
        assert spends, "nothing was left to train"
        assert spends[0] > 1, "the training began anew instead of going on"
        assert without_time(found) == without_time(expected)
        assert weights(resumed) == weights(undisturbed)

    def test_finished_checkpoint_is_not_trained_again(
        self, task: Task, model_factory: Callable[[], nn.Module], tmp_path: Path
    ) -> None:
        self._needs_checkpoints()
        first, again, spends = model_factory(), model_factory(), []
        expected = task.train(first, self.budget, seed=1, checkpoint=tmp_path / "c")
        found = task.train(
            again, self.budget, seed=1, checkpoint=tmp_path / "c", progress=lambda spent, _: spends.append(spent)
        )
        assert not spends
        assert found == expected
        assert weights(again) == weights(first)

    def test_checkpoints_are_safetensors_and_json(
        self, task: Task, model_factory: Callable[[], nn.Module], tmp_path: Path
    ) -> None:
        self._needs_checkpoints()
        task.train(model_factory(), self.budget, seed=1, checkpoint=tmp_path / "c")
        suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
        assert suffixes == {".json", ".safetensors"}

    def test_checkpoint_of_another_training_is_refused(
        self, task: Task, model_factory: Callable[[], nn.Module], tmp_path: Path
    ) -> None:
        self._needs_checkpoints()
        task.train(model_factory(), self.budget, seed=1, checkpoint=tmp_path / "c")
        with pytest.raises(GnomonError):
            task.train(model_factory(), self.budget, seed=2, checkpoint=tmp_path / "c")

    def _needs_checkpoints(self) -> None:
        if not self.resumes:
            pytest.skip("this task writes no checkpoints")

    # ---- Scores ------------------------------------------------------------------------------

    @pytest.mark.parametrize("split", ["validation", "test"])
    def test_scoring_is_pure(self, task: Task, model_factory: Callable[[], nn.Module], split: str) -> None:
        model = model_factory().train()
        before = weights(model)
        first, second = task.score(model, split), task.score(model, split)
        assert math.isfinite(first[task.metric])
        assert first == second
        assert model.training
        assert weights(model) == before

    def test_onnx_scores_like_torch(self, task: Task, model_factory: Callable[[], nn.Module], tmp_path: Path) -> None:
        model = model_factory()
        task.train(model, self.budget, seed=0)
        path = self.exported(task, model, tmp_path)
        for split in ("validation", "test"):
            expected, found = task.score(model, split), task.score(path, split)
            assert found.keys() == expected.keys()
            assert all(found[name] == pytest.approx(expected[name], abs=2e-3) for name in expected)

    def test_unknown_split_is_refused(self, task: Task, model_factory: Callable[[], nn.Module]) -> None:
        with pytest.raises(GnomonError, match="validation"):
            task.score(model_factory(), "holdout")

    def test_missing_model_file_is_refused(self, task: Task, tmp_path: Path) -> None:
        with pytest.raises(GnomonError, match=r"missing\.onnx"):
            task.score(tmp_path / "missing.onnx", "test")


def export_onnx(model: nn.Module, input_shape: tuple[int, ...], path: Path) -> Path:
    """The model as ONNX with a free batch size."""
    import torch

    torch.onnx.export(
        model.eval(),
        (torch.zeros(2, *input_shape),),
        str(path),
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    return path


def process_state() -> dict[str, Any]:
    """What training and scoring must leave as it was."""
    import torch

    return {
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": torch.get_default_dtype(),
    }
