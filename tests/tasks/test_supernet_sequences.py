"""A supernet of transformers, on words whose letters come out in reverse."""

from itertools import product

import numpy as np
import pytest
from omegaconf import OmegaConf

from gnomon.search.setup import make_space
from gnomon.search_spaces.extremes import largest
from gnomon.tasks.sequences.pairs import PairData, PairSource
from gnomon.tasks.sequences.task import SequencePairs
from gnomon.tasks.supernet_evaluator import SupernetEvaluator
from gnomon.tasks.weight_sharing.sandwich import Sandwich


class Reversed(PairSource):
    name = "reversed"
    unit = "name"

    def load(self) -> PairData:
        words = ["".join(letters) for n in (2, 3) for letters in product("abcde", repeat=n)]
        return PairData(tuple(words), tuple(" ".join(w[::-1].upper()) for w in words), ("a", "b"), "words", self.unit)


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory):
    recipe = {"batch_size": 16, "lr": 0.01, "schedule": "cosine", "warmup": 0.1}
    task = SequencePairs(Reversed(), recipe, max_tokens=6, metric="likelihood")
    node = {
        "_target_": "gnomon.search_spaces.hat.HATSpace",
        "source_vocabulary": None,
        "target_vocabulary": None,
        "source_length": None,
        "generated_length": None,
        "max_length": None,
        "dropout": 0.1,
        "qkv_width": 16,
        "widths": [16, 24],
        "ffn_widths": [16, 32],
        "heads": [2],
        "encoder_layers": [1],
        "decoder_layers": [1, 2],
        "attended": [1],
    }
    space = make_space(OmegaConf.create(node), task, [])
    evaluator = SupernetEvaluator(space, task, Sandwich(random=1), epochs=6, quality="loss")
    evaluator.prepare(tmp_path_factory.mktemp("study"), seed=0)
    return evaluator


def test_it_learns_without_batch_norm(evaluator):
    record = evaluator.shared_training()
    assert record.losses[-1] < record.losses[0]
    curve = record.curves["largest"]
    assert curve[-1] > curve[0]


def test_sub_networks_are_scored_by_their_loss(evaluator):
    space = evaluator.space
    rows = np.concatenate([largest(space)[None], space.sample(3, np.random.default_rng(0))])
    scores = [evaluator.evaluate(space.architecture(row), seed=0) for row in rows]
    assert all(score.quality == -score.metrics["loss"] for score in scores)
    assert len({score.quality for score in scores}) == len(np.unique(rows, axis=0))


def test_sub_networks_can_be_tuned(evaluator, tmp_path_factory):
    tuned = SupernetEvaluator(
        evaluator.space, evaluator.task, Sandwich(random=1), epochs=6, quality="loss", tune_epochs=2
    )
    tuned.prepare(tmp_path_factory.mktemp("tuned"), seed=0)
    architecture = evaluator.space.architecture(largest(evaluator.space))
    shared, own = (each.evaluate(architecture, seed=0) for each in (evaluator, tuned))
    assert own.quality > shared.quality
    assert own.budget == 2
