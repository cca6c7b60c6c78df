import shutil

import numpy as np
import pytest
import torch

from gnomon.errors import ConfigError, SchemaError, TaskError
from gnomon.tasks import Task
from gnomon.tasks.image_classification import ImageClassification
from gnomon.tasks.supernet_evaluator import SupernetEvaluator
from gnomon.tasks.weight_sharing.sandwich import Sandwich
from gnomon.tasks.weight_sharing.single_path import SinglePath
from gnomon.testing import EvaluatorSuite
from gnomon.testing.task_suite import without_time
from tests.tasks.doubles.tiny_elastic import TinyElasticSpace


@pytest.fixture
def space():
    return TinyElasticSpace()


@pytest.fixture
def make_evaluator(space, make_task):
    def make(rule=None, *, task=None, **arguments):
        arguments = {"epochs": 2, "calibration_batches": 2, **arguments}
        return SupernetEvaluator(space, task or make_task(), rule or Sandwich(random=1), **arguments)

    return make


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a finished supernet, made once."""
    return tmp_path_factory.mktemp("study")


@pytest.fixture
def prepared(make_evaluator, trained):
    evaluator = make_evaluator(epochs=8)
    evaluator.prepare(trained, seed=1)
    return evaluator


class TestSupernet(EvaluatorSuite):
    @pytest.fixture
    def evaluator(self, prepared):
        return prepared

    @pytest.fixture
    def architecture(self, space):
        return space.architecture(np.array([1, 1, 1, 0], dtype=np.int8))

    @pytest.fixture
    def impossible_architecture(self):
        other = TinyElasticSpace()
        architecture = other.architecture(np.array([1, 1, 1, 0], dtype=np.int8))
        architecture.config["width"] = 5
        return architecture


class TestTuned(TestSupernet):
    @pytest.fixture
    def evaluator(self, make_evaluator, prepared, trained):
        evaluator = make_evaluator(epochs=8, tune_epochs=1)
        evaluator.prepare(trained, seed=1)  # the same supernet
        return evaluator


def every_architecture(space):
    return [space.architecture(row) for row in space.enumerate()]


def weights(evaluator):
    return {name: tensor.clone() for name, tensor in evaluator._model.state_dict().items()}


def test_tuning_trains_a_copy(make_evaluator, space, tmp_path):
    shared, tuned = make_evaluator(epochs=1), make_evaluator(epochs=1, tune_epochs=2, tuning={"lr": 0.02})
    shared.prepare(tmp_path, seed=1)
    tuned.prepare(tmp_path, seed=1)
    losses = []
    for architecture in every_architecture(space):
        found = tuned.evaluate(architecture, seed=0)
        assert without_time(found) == without_time(tuned.evaluate(architecture, seed=0))
        losses.append((found.metrics["loss"], shared.evaluate(architecture, seed=0).metrics["loss"]))
    after, before = np.mean(losses, axis=0)
    assert after < before
    for name, tensor in weights(tuned).items():
        torch.testing.assert_close(tensor, weights(shared)[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"tune_epochs": -1}, "quality.tune_epochs"),
        ({"tune_epochs": float("nan")}, "quality.tune_epochs"),
        ({"tune_epochs": "two"}, "quality.tune_epochs"),
        ({"tune_epochs": None}, "quality.tune_epochs"),
        ({"tune_epochs": 1, "tuning": {"batch_size": 3}}, "quality.tuning.batch_size"),
    ],
)
def test_tuning_is_checked(make_evaluator, arguments, field):
    with pytest.raises(ConfigError, match=field.replace(".", r"\.")):
        make_evaluator(**arguments)


def test_a_finished_supernet_is_not_trained_again(make_evaluator, prepared, trained, space):
    calls = []
    again = make_evaluator(epochs=8)
    again.prepare(trained, seed=1, progress=lambda *call: calls.append(call))
    assert not calls
    assert again.shared_training() == prepared.shared_training()
    for architecture in every_architecture(space):
        first, second = prepared.evaluate(architecture, seed=0), again.evaluate(architecture, seed=0)
        assert without_time(first) == without_time(second)


def test_evaluations_leave_the_supernet_as_it_is(prepared, space):
    before = weights(prepared)
    for architecture in every_architecture(space):
        prepared.evaluate(architecture, seed=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(prepared).items())


def test_networks_learnt_something(prepared, space):
    scores = [prepared.evaluate(a, seed=0) for a in every_architecture(space)]
    assert max(score.quality for score in scores) > 0.8
    assert len({score.metrics["loss"] for score in scores}) == len(scores), "each network has its own weights"


def test_it_goes_on_after_a_kill(make_evaluator, tmp_path, trained, prepared):
    def kill(spent, metric):
        if spent >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_evaluator(epochs=8).prepare(tmp_path, seed=1, progress=kill)
    spends = []
    again = make_evaluator(epochs=8)
    again.prepare(tmp_path, seed=1, progress=lambda spent, _: spends.append(spent))
    assert spends == [4.0, 5.0, 6.0, 7.0, 8.0]
    expected = weights(prepared)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(again).items())
    assert sorted(path.name for path in (tmp_path / "supernet").iterdir()) == ["supernet.json", "supernet.safetensors"]


def test_loss_as_quality(make_evaluator, prepared, trained, space):
    by_loss = make_evaluator(epochs=8, quality="loss")
    by_loss.prepare(trained, seed=1)  # the same supernet serves both
    for architecture in every_architecture(space)[:3]:
        expected = prepared.evaluate(architecture, seed=0)
        found = by_loss.evaluate(architecture, seed=0)
        assert found.quality == -expected.metrics["loss"]
        assert found.metrics == expected.metrics
    assert by_loss.identity() != prepared.identity()


def test_weights_of_another_study_serve_as_they_are(make_evaluator, prepared, trained, tmp_path, space):
    path = tmp_path / "weights.safetensors"
    shutil.copy(trained / "supernet" / "supernet.safetensors", path)
    taken = make_evaluator(epochs=0, weights=str(path))
    taken.prepare(tmp_path / "study", seed=1)
    for architecture in every_architecture(space)[:4]:
        assert taken.evaluate(architecture, seed=0).metrics == prepared.evaluate(architecture, seed=0).metrics
    assert taken.shared_training().networks == 0


def test_weights_of_another_study_are_a_start(make_evaluator, prepared, trained, tmp_path):
    source = trained / "supernet" / "supernet.safetensors"
    evaluator = make_evaluator(epochs=1, weights=str(source), training={"lr": 1e-6})
    evaluator.prepare(tmp_path, seed=3)
    fresh = make_evaluator(epochs=1, training={"lr": 1e-6})
    fresh.prepare(tmp_path / "fresh", seed=3)
    assert evaluator.shared_training().losses[0] < fresh.shared_training().losses[0]
    assert evaluator.identity()["weights"] != fresh.identity()["weights"]


def test_weights_that_do_not_fit_are_refused(make_evaluator, trained, prepared, tmp_path, make_task):
    source = str(trained / "supernet" / "supernet.safetensors")
    other = SupernetEvaluator(TinyElasticSpace(batch_norm=False), make_task(), Sandwich(), weights=source, epochs=1)
    with pytest.raises(TaskError, match="do not fit"):
        other.prepare(tmp_path, seed=0)
    (tmp_path / "damaged").write_bytes(b"no")
    with pytest.raises(SchemaError, match="damaged"):
        make_evaluator(epochs=1, weights=str(tmp_path / "damaged")).prepare(tmp_path, seed=0)


def test_another_supernet_in_the_folder_is_refused(make_evaluator, trained, prepared):
    with pytest.raises(TaskError, match="seed differ"):
        make_evaluator(epochs=8).prepare(trained, seed=2)
    with pytest.raises(TaskError, match="rule differ"):
        make_evaluator(SinglePath(), epochs=8).prepare(trained, seed=1)


def test_evaluating_before_preparing_is_a_clear_error(make_evaluator, space):
    with pytest.raises(TaskError, match="prepare first"):
        make_evaluator().evaluate(every_architecture(space)[0], seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "quality.epochs"),
        ({"epochs": 1.5}, "quality.epochs"),
        ({"quality": "speed"}, "metric, loss"),
        ({"processes": 0}, "quality.processes"),
        ({"threads": 0}, "quality.threads"),
        ({"calibration_batches": 0}, "calibration_batches"),
        ({"training": {"batch_size": 8}}, r"task\.training\.batch_size"),
        ({"training": {"rate": 1}}, "unknown key"),
        ({"rule": "sandwich"}, "training rule"),
    ],
)
def test_bad_arguments_are_refused(make_evaluator, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_evaluator(**arguments)


def test_missing_weights_are_refused(make_evaluator):
    with pytest.raises(ConfigError, match=r"quality\.weights"):
        make_evaluator(weights="nowhere.safetensors").identity()


def test_what_cannot_share_weights_is_refused(tiny_space, make_task, space):
    with pytest.raises(ConfigError, match="shares no weights"):
        SupernetEvaluator(tiny_space, make_task(), Sandwich())
    with pytest.raises(ConfigError, match="another input"):
        SupernetEvaluator(TinyElasticSpace(input_shape=(1, 4, 4)), make_task(), Sandwich())

    class Alone(ImageClassification):
        training_data = Task.training_data

    with pytest.raises(ConfigError, match="in its own way"):
        SupernetEvaluator(space, Alone(make_task().source), Sandwich())


def test_the_recipe_is_the_tasks_with_changes(make_evaluator, make_task):
    evaluator = make_evaluator(task=make_task(lr=0.5, shift=1), training={"weight_decay": 0.0})
    assert (evaluator.recipe.lr, evaluator.recipe.weight_decay) == (0.5, 0.0)


def test_hints_are_seconds(make_evaluator):
    evaluator = make_evaluator()
    assert 0 < evaluator.preparation_hint_s() < 600
    assert 0 < evaluator.cost_hint_s() < 60
