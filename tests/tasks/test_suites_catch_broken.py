"""The conformance suites must fail on what they are there to catch."""

import copy
import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from gnomon.errors import TaskError
from gnomon.tasks.image_classification import ImageClassification
from gnomon.tasks.train_evaluator import TrainEvaluator
from gnomon.testing import EvaluatorSuite, TaskSuite


def run_check(suite, check, **fixtures):
    """One test of a suite with these fixtures; those that it does not ask for are left out."""
    method = getattr(suite(), check)
    wanted = inspect.signature(method).parameters
    method(**{name: value for name, value in fixtures.items() if name in wanted})


class LeakyTask(ImageClassification):
    def example_keys(self, split):
        return super().example_keys("train" if split == "test" else split)


class EmptyTask(ImageClassification):
    def example_keys(self, split):
        return [] if split == "test" else super().example_keys(split)


class UnseededTask(ImageClassification):
    calls = 0

    def train(self, model, budget, *, seed, **kwargs):
        UnseededTask.calls += 1
        return replace(super().train(model, budget, seed=seed + UnseededTask.calls, **kwargs), seed=seed)


class SeedlessTask(ImageClassification):
    def train(self, model, budget, *, seed, **kwargs):
        return replace(super().train(model, budget, seed=0, **kwargs), seed=seed)


class ForgetfulTask(ImageClassification):
    """Writes checkpoints and never reads them."""

    def train(self, model, budget, *, seed, checkpoint=None, progress=None):
        result = super().train(model, budget, seed=seed, progress=progress)
        if checkpoint is not None:
            checkpoint.mkdir(exist_ok=True)
        return result


class UntrainedTask(ImageClassification):
    def train(self, model, budget, **kwargs):
        return super().train(copy.deepcopy(model), budget, **kwargs)


class PickledTask(ImageClassification):
    def train(self, model, budget, *, seed, checkpoint=None, progress=None):
        result = super().train(model, budget, seed=seed, checkpoint=checkpoint, progress=progress)
        if checkpoint is not None:
            torch.save(model.state_dict(), checkpoint / "model.pt")
        return result


class TestScoringTask(ImageClassification):
    """Reports the test score as the validation quality."""

    __test__ = False

    def train(self, model, budget, **kwargs):
        result = super().train(model, budget, **kwargs)
        return replace(result, quality=self.score(model, "test")["accuracy"] - 0.01)


class NoisyProcessTask(ImageClassification):
    def train(self, model, budget, *, seed, **kwargs):
        torch.manual_seed(seed)
        return super().train(model, budget, seed=seed, **kwargs)


class SplitBlindTask(ImageClassification):
    def score(self, model, split):
        return super().score(model, "validation")


class TrainingModeTask(ImageClassification):
    """Scores with batch statistics and leaves the model changed."""

    def score(self, model, split):
        if isinstance(model, torch.nn.Module):
            model.train()
            model(torch.from_numpy(self.data.normalised("validation")))
        return super().score(model, split)


class SameIdentityTask(ImageClassification):
    def identity(self):
        return {"task": "blobs"}


class NotJsonTask(ImageClassification):
    def identity(self):
        return {**super().identity(), "mean": self.data.mean}


class StubbornTask(ImageClassification):
    """Ignores that the callback wants to stop."""

    def train(self, model, budget, *, progress=None, **kwargs):
        result = super().train(model, budget, **kwargs)
        if progress is not None:
            for epoch, value in enumerate(result.curve):
                try:
                    progress(epoch + 1.0, value)
                except Exception:
                    continue
        return result


BROKEN_TASKS = [
    (LeakyTask, "test_splits_share_no_example"),
    (EmptyTask, "test_splits_share_no_example"),
    (UnseededTask, "test_same_seed_same_result"),
    (SeedlessTask, "test_same_seed_same_result"),
    (ForgetfulTask, "test_resumed_equals_undisturbed"),
    (ForgetfulTask, "test_finished_checkpoint_is_not_trained_again"),
    (UntrainedTask, "test_evaluation_is_valid"),
    (PickledTask, "test_checkpoints_are_safetensors_and_json"),
    (TestScoringTask, "test_quality_is_the_validation_score_of_the_model"),
    (TestScoringTask, "test_evaluation_is_valid"),
    (NoisyProcessTask, "test_training_leaves_the_process_as_it_was"),
    (SplitBlindTask, "test_unknown_split_is_refused"),
    (TrainingModeTask, "test_scoring_is_pure"),
    (SameIdentityTask, "test_identity_changes_with_the_data"),
    (NotJsonTask, "test_identity_and_preprocessing_are_json"),
    (StubbornTask, "test_stopping_early_keeps_what_was_reached"),
]


@pytest.mark.parametrize(("broken", "check"), BROKEN_TASKS)
def test_task_suite_catches(broken, check, blobs, tiny_model, tmp_path):
    def make(task_class):
        settings = {"batch_size": 16}
        return {
            "task": task_class(blobs(), settings),
            "other_task": task_class(blobs(seed=1), settings),
            "model_factory": tiny_model,
            "split": "validation",
        }

    (tmp_path / "sound").mkdir()
    run_check(TaskSuite, check, tmp_path=tmp_path / "sound", **make(ImageClassification))
    with pytest.raises((AssertionError, TypeError, pytest.fail.Exception)):
        run_check(TaskSuite, check, tmp_path=tmp_path, **make(broken))


class UnseededEvaluator(TrainEvaluator):
    calls = 0

    def evaluate(self, architecture, *, seed, progress=None):
        self.calls += 1
        return replace(super().evaluate(architecture, seed=seed + self.calls), seed=seed)


class NanEvaluator(TrainEvaluator):
    def evaluate(self, architecture, *, seed, progress=None):
        return replace(super().evaluate(architecture, seed=seed), quality=float("nan"))


class DriftingEvaluator(TrainEvaluator):
    """Its identity depends on what it has done."""

    calls = 0

    def evaluate(self, architecture, *, seed, progress=None):
        self.calls += 1
        return super().evaluate(architecture, seed=seed, progress=progress)

    def identity(self):
        return {**super().identity(), "calls": self.calls}


class SilentEvaluator(TrainEvaluator):
    def evaluate(self, architecture, *, seed, progress=None):
        try:
            return super().evaluate(architecture, seed=seed, progress=progress)
        except TaskError:
            return None


class SeedForgettingEvaluator(TrainEvaluator):
    def evaluate(self, architecture, *, seed, progress=None):
        return replace(super().evaluate(architecture, seed=seed, progress=progress), seed=0)


class ReseedingEvaluator(TrainEvaluator):
    def evaluate(self, architecture, *, seed, progress=None):
        torch.manual_seed(seed)
        return super().evaluate(architecture, seed=seed, progress=progress)


BROKEN_EVALUATORS = [
    (UnseededEvaluator, "test_same_seed_same_result"),
    (UnseededEvaluator, "test_evaluations_do_not_disturb_each_other"),
    (NanEvaluator, "test_evaluation_is_valid"),
    (SeedForgettingEvaluator, "test_evaluation_is_valid"),
    (DriftingEvaluator, "test_identity_stays"),
    (ReseedingEvaluator, "test_evaluating_leaves_the_process_as_it_was"),
    (SilentEvaluator, "test_impossible_architecture_is_a_clear_error"),
]


@pytest.mark.parametrize(("broken", "check"), BROKEN_EVALUATORS)
def test_evaluator_suite_catches(broken, check, tiny_space, make_tiny_space, make_task):
    class OutOfMemorySpace(make_tiny_space):
        def build(self, config):
            raise RuntimeError("out of memory")

    space = OutOfMemorySpace() if "impossible" in check else tiny_space
    architecture = space.architecture(np.array([1, 1], dtype=np.int8))
    fixtures = {"architecture": architecture, "impossible_architecture": architecture}
    run_check(EvaluatorSuite, check, evaluator=TrainEvaluator(space, make_task(), epochs=1), **fixtures)
    with pytest.raises((AssertionError, TypeError, pytest.fail.Exception)):
        run_check(EvaluatorSuite, check, evaluator=broken(space, make_task(), epochs=1), **fixtures)
