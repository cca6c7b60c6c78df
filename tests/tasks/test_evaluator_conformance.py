import numpy as np
import pytest

from gnomon.records import ArchitectureTable
from gnomon.tasks.recorded import RecordedEvaluator, RecordedTask
from gnomon.tasks.train_evaluator import TrainEvaluator
from gnomon.testing import EvaluatorSuite


@pytest.fixture
def table(tiny_space):
    genotypes = np.array([[0, 0], [0, 1], [1, 0]], dtype=np.int8)
    return ArchitectureTable(tiny_space, genotypes, {"accuracy": np.array([0.5, 0.6, np.nan])}, "a paper")


class TestTrain(EvaluatorSuite):
    @pytest.fixture
    def evaluator(self, tiny_space, make_task):
        return TrainEvaluator(tiny_space, make_task(), epochs=2)

    @pytest.fixture
    def architecture(self, tiny_space):
        return tiny_space.architecture(np.array([1, 1], dtype=np.int8))

    @pytest.fixture
    def impossible_architecture(self, tiny_space, monkeypatch):
        def build(config):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(tiny_space, "build", build)
        return tiny_space.architecture(np.array([0, 1], dtype=np.int8))


class TestRecorded(EvaluatorSuite):
    @pytest.fixture
    def evaluator(self, tiny_space, table):
        return RecordedEvaluator(tiny_space, RecordedTask("CIFAR-100", (3, 32, 32), 100), table, "accuracy")

    @pytest.fixture
    def architecture(self, tiny_space):
        return tiny_space.architecture(np.array([0, 1], dtype=np.int8))

    @pytest.fixture
    def impossible_architecture(self, tiny_space):
        return tiny_space.architecture(np.array([1, 1], dtype=np.int8))
