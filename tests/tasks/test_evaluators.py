import time

import numpy as np
import pytest
import torch

from gnomon.errors import ConfigError, DataError, TaskError
from gnomon.records import ArchitectureTable
from gnomon.search_spaces.hat import HATSpace
from gnomon.search_spaces.hybrid_slm.free import HybridSLMFree
from gnomon.tasks.recorded import RecordedEvaluator, RecordedTask
from gnomon.tasks.train_evaluator import TrainEvaluator, check_same_input


@pytest.fixture
def table(tiny_space):
    genotypes = np.array([[0, 0], [0, 1], [1, 0]], dtype=np.int8)
    return ArchitectureTable(tiny_space, genotypes, {"accuracy": np.array([0.5, 0.6, np.nan])}, "a paper")


@pytest.fixture
def recorded_task():
    return RecordedTask("CIFAR-100", [3, 32, 32], 100)


# ---- training -------------------------------------------------------------------------------


def test_weights_come_from_the_seed(tiny_space, make_task):
    evaluator = TrainEvaluator(tiny_space, make_task(), epochs=0.1)
    architecture = tiny_space.architecture(np.array([1, 1], dtype=np.int8))
    torch.manual_seed(0)
    first = evaluator.evaluate(architecture, seed=1)
    torch.manual_seed(99)
    again, other = evaluator.evaluate(architecture, seed=1), evaluator.evaluate(architecture, seed=2)
    assert first.metrics == again.metrics
    assert first.metrics["loss"] != other.metrics["loss"]


def test_time_limit_stops_after_an_epoch(tiny_space, make_task):
    evaluator = TrainEvaluator(tiny_space, make_task(), epochs=50, time_limit_s=1e-6)
    evaluation = evaluator.evaluate(tiny_space.architecture(np.array([0, 0], dtype=np.int8)), seed=0)
    assert evaluation.budget == 1.0


def test_threads_are_set_and_put_back(tiny_space, make_task):
    seen = []
    before = torch.get_num_threads()
    evaluator = TrainEvaluator(tiny_space, make_task(), epochs=1, threads=3)
    architecture = tiny_space.architecture(np.array([0, 0], dtype=np.int8))
    evaluator.evaluate(architecture, seed=0, progress=lambda *_: seen.append(torch.get_num_threads()))
    assert seen == [3]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"epochs": 0}, "epochs"), ({"threads": 0}, "threads"), ({"time_limit_s": 0.0}, "time_limit_s")],
)
def test_bad_arguments_are_refused(tiny_space, make_task, arguments, message):
    with pytest.raises(ConfigError, match=message):
        TrainEvaluator(tiny_space, make_task(), **arguments)


def test_space_of_another_input_shape_is_refused(make_tiny_space, make_task):
    with pytest.raises(ConfigError, match=r"\(3, 8, 8\).*allowed: \(1, 8, 8\)"):
        TrainEvaluator(make_tiny_space((3, 8, 8)), make_task())


def test_space_of_sequences_is_refused_for_images(make_task):
    space = HybridSLMFree(mixers=["attention"], vocabulary=16, max_length=32, context=16)
    with pytest.raises(ConfigError, match=r"task=.*models for sequences.*examples are images.*gnomon spaces"):
        TrainEvaluator(space, make_task())


def test_pairs_of_sequences_are_not_texts(make_task):
    class Texts:
        """All that is asked of a task."""

        name = "texts"
        input_shape = (16,)

        def space_arguments(self):
            return {"vocabulary": 16, "max_length": 32}

    check_same_input(HybridSLMFree(mixers=["attention"], vocabulary=16, max_length=32, context=16), Texts())
    with pytest.raises(ConfigError, match=r"task='texts': the search space hat builds models for pairs of sequences"):
        check_same_input(HATSpace(source_vocabulary=16, target_vocabulary=16), Texts())


def test_space_of_another_number_of_classes_fails_clearly(make_tiny_space, make_task):
    space = make_tiny_space(classes=7)
    evaluator = TrainEvaluator(space, make_task(), epochs=1)
    with pytest.raises(TaskError, match="one logit per class"):
        evaluator.evaluate(space.architecture(np.array([0, 0], dtype=np.int8)), seed=0)


def test_cost_hint_is_near_the_truth(tiny_space, make_task):
    evaluator = TrainEvaluator(tiny_space, make_task(), epochs=10)
    architecture = tiny_space.architecture(np.array([1, 1], dtype=np.int8))
    true = min(evaluator.evaluate(architecture, seed=0).cost_s for _ in range(3))
    # A shared machine makes times jump; the order of magnitude must be right.
    assert true / 8 < evaluator.cost_hint_s() < true * 8


# ---- tables ---------------------------------------------------------------------------------


def test_recorded_value_is_the_quality(tiny_space, table, recorded_task):
    evaluator = RecordedEvaluator(tiny_space, recorded_task, table, "accuracy")
    evaluation = evaluator.evaluate(tiny_space.architecture(np.array([0, 1], dtype=np.int8)), seed=3)
    assert evaluation.quality == 0.6
    assert not evaluator.has_weights


@pytest.mark.parametrize("genes", [[1, 0], [1, 1]])
def test_unrecorded_architectures_fail(tiny_space, table, recorded_task, genes):
    evaluator = RecordedEvaluator(tiny_space, recorded_task, table, "accuracy")
    with pytest.raises(TaskError, match="a paper has no accuracy"):
        evaluator.evaluate(tiny_space.architecture(np.array(genes, dtype=np.int8)), seed=0)


def test_simulated_cost_is_slept(tiny_space, table, recorded_task):
    evaluator = RecordedEvaluator(tiny_space, recorded_task, table, "accuracy", cost_s=0.05)
    start = time.perf_counter()
    evaluation = evaluator.evaluate(tiny_space.architecture(np.array([0, 0], dtype=np.int8)), seed=0)
    assert time.perf_counter() - start >= 0.05
    assert evaluation.cost_s >= 0.05
    assert evaluator.cost_hint_s() == 0.05


def test_recorded_mistakes(tiny_space, make_tiny_space, table, recorded_task):
    with pytest.raises(DataError, match=r"quality\.column.*accuracy"):
        RecordedEvaluator(tiny_space, recorded_task, table, "top5")
    with pytest.raises(ConfigError, match="cost_s"):
        RecordedEvaluator(tiny_space, recorded_task, table, "accuracy", cost_s=-1)
    other = make_tiny_space()
    other.algebra = type(other.algebra)(other.decisions[:1])
    with pytest.raises(ConfigError, match="another search space"):
        RecordedEvaluator(other, recorded_task, table, "accuracy")


def test_identity_follows_the_values(tiny_space, table, recorded_task):
    changed = ArchitectureTable(tiny_space, table.genotypes, {"accuracy": np.array([0.5, 0.7, np.nan])}, "a paper")
    moved = ArchitectureTable(tiny_space, table.genotypes, table.columns, "the same, in another folder")
    identities = [
        RecordedEvaluator(tiny_space, recorded_task, t, "accuracy").identity() for t in (table, changed, moved)
    ]
    assert identities[0] == identities[2] != identities[1]


def test_recorded_task_has_no_weights(recorded_task, tiny_model, tmp_path):
    assert recorded_task.input_shape == (3, 32, 32)
    assert len(recorded_task.labels) == 100
    with pytest.raises(TaskError, match="neither data nor weights"):
        recorded_task.train(tiny_model(), 1, seed=0)
    with pytest.raises(TaskError, match="neither data nor weights"):
        recorded_task.score(tmp_path / "m.onnx", "test")
    with pytest.raises(ConfigError, match="at least 2"):
        RecordedTask("x", [1, 2, 2], 1)
