"""Replacements of a trained model learn by themselves; networks are put together from them."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from gnomon.errors import ConfigError, TaskError
from gnomon.search import Problem
from gnomon.search.objectives import ParetoObjective
from gnomon.search.strategies.integer_program import IntegerProgram
from gnomon.search_spaces.hybrid_slm.model import LanguageModel
from gnomon.search_spaces.hybrid_slm.replacement import MixerReplacement
from gnomon.search_spaces.hybrid_slm.saved import save_language_model
from gnomon.search_spaces.hybrid_slm.sizes import MixerSizes
from gnomon.search_spaces.hybrid_slm.specs import FFN, LanguageModelSpec, Operator
from gnomon.tasks.blockwise import relative_error
from gnomon.tasks.blockwise_evaluator import BlockwiseEvaluator
from gnomon.tasks.language.sources import TextFiles
from gnomon.tasks.language.task import LanguageModelling
from gnomon.testing import EvaluatorSuite, simulate
from gnomon.testing.strategy_problems import ToyLatency
from tests.tasks.doubles.tiny_elastic import TinyElasticSpace

torch.set_num_threads(1)

LENGTH = 32
SIZES = MixerSizes(width=16, heads=2, kv_heads=2, head_size=8, window=16, max_length=LENGTH + 6)
WORDS = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "lmnr"]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Random words, each twice: what has a longer window does better."""
    folder, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    for number in range(60):
        pairs = [f"{word} {word}." for word in rng.choice(WORDS, 40)]
        (folder / f"{number}.txt").write_text("\n".join(pairs))
    return LanguageModelling(
        TextFiles(str(folder)),
        {"lr": 5e-3, "batch_size": 8, "schedule": "cosine", "warmup": 0.1, "weight_decay": 0.0, "label_smoothing": 0.0},
        fractions=(0.8, 0.1, 0.1),
        length=LENGTH,
        tokens_per_epoch=20 * 8 * LENGTH,
        scored=16,
    )


@pytest.fixture(scope="module")
def folder(task, tmp_path_factory):
    """A trained parent."""
    folder = tmp_path_factory.mktemp("parent")
    operators = (Operator("attention", SIZES), Operator(FFN, SIZES, 24)) * 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LanguageModel(LanguageModelSpec(task.tokenizer.size, 16, operators, max_length=LENGTH))
    task.train(model, 10, seed=0)
    save_language_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def space(folder):
    return MixerReplacement(folder, [{"kind": "sliding_window", "window": 2}, "deltanet"], context=LENGTH)


@pytest.fixture
def make_evaluator(space, task):
    return lambda **arguments: BlockwiseEvaluator(space, task, **{"epochs": 3, **arguments})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder whose replacements have learnt, made once."""
    return tmp_path_factory.mktemp("study")


@pytest.fixture
def prepared(make_evaluator, study):
    evaluator = make_evaluator()
    evaluator.prepare(study, seed=1)
    return evaluator


def architecture(space, name):
    return space.architecture(space.named_genotype(name))


class TestBlockwise(EvaluatorSuite):
    @pytest.fixture
    def evaluator(self, prepared):
        return prepared

    @pytest.fixture
    def architecture(self, space):
        return architecture(space, "all_deltanet")

    @pytest.fixture
    def impossible_architecture(self, space):
        found = architecture(space, "all_deltanet")
        return dataclasses.replace(found, config={**found.config, "mixer1": "no such"})


class TestFinetuned(EvaluatorSuite):
    @pytest.fixture
    def evaluator(self, make_evaluator, study):
        evaluator = make_evaluator(finetune_epochs=0.3)
        evaluator.prepare(study, seed=1)
        return evaluator

    @pytest.fixture
    def architecture(self, space):
        return architecture(space, "all_deltanet")


# ---- What is learnt ---------------------------------------------------------------------------------


def test_every_replacement_learns(prepared, space):
    record = prepared.shared_training()
    names = {f"{place}/{kind}" for place in ("mixer1", "mixer2") for kind in ("deltanet", "sliding_window_window2")}
    assert set(record.errors) == names
    assert all(errors[-1] < 0.8 * errors[0] for errors in record.errors.values())
    assert record.losses[-1] < record.losses[0]
    untrained = prepared._metric(space.initial(space.named["all_deltanet"]))
    assert record.curves["all_deltanet"][-1] > untrained
    assert len(set(record.curves["parent"])) == 1


def test_nothing_else_changes(prepared, space, task):
    fresh, learnt = space.elastic(), prepared._model
    bodies = {id(p) for place in learnt.places().values() for m in place.replacements.values() for p in m.parameters()}
    learners = {name for name, parameter in learnt.named_parameters() if id(parameter) in bodies}
    begun = fresh.state_dict()
    changed = {name for name, tensor in learnt.state_dict().items() if not torch.equal(tensor, begun[name])}
    assert len(learners) == 2 * (4 + 4)
    # What is initialised at random differs between the two.
    assert changed == learners
    parent = prepared.evaluate(architecture(space, "parent"), seed=0)
    assert parent.metrics == task.score(space.given(), "validation")


def test_replacements_learn_as_if_each_were_alone(prepared, folder, task, space, tmp_path):
    """Their losses and gradients do not meet."""
    record = prepared.shared_training()
    alone = MixerReplacement(folder, [{"kind": "sliding_window", "window": 2}], context=LENGTH)
    evaluator = BlockwiseEvaluator(alone, task, epochs=3)
    evaluator.prepare(tmp_path, seed=1)
    # It begins with the attention's projections, without random weights of its own.
    for name, errors in evaluator.shared_training().errors.items():
        assert errors == pytest.approx(record.errors[name], rel=1e-3)


def test_nothing_at_all_is_a_replacement(folder, task, tmp_path):
    space = MixerReplacement(folder, ["deltanet", "identity"], context=LENGTH)
    evaluator = BlockwiseEvaluator(space, task, epochs=1)
    evaluator.prepare(tmp_path, seed=0)
    assert evaluator.shared_training().errors["mixer2/identity"] == (1.0,)
    found = evaluator.evaluate(architecture(space, "all_identity"), seed=0)
    assert found.quality < evaluator.evaluate(architecture(space, "parent"), seed=0).quality


def test_weights_are_normalised_where_they_learn(folder, task, space, tmp_path):
    normalising = copy.copy(task)
    normalising.weight_normalisation = True
    evaluator = BlockwiseEvaluator(space, normalising, epochs=1)
    evaluator.prepare(tmp_path, seed=0)
    rows = [place.replacements["deltanet"].inputs.weight.norm(dim=-1) for place in evaluator._model.places().values()]
    assert all(torch.allclose(lengths, torch.ones_like(lengths)) for lengths in rows)
    given = space.given().state_dict()
    parent = evaluator._model.extract(space.named["parent"]).state_dict()
    assert all(torch.equal(tensor, given[name]) for name, tensor in parent.items())


def test_the_error_is_relative():
    wanted = torch.tensor([[1.0, -2.0]])
    assert float(relative_error(torch.zeros(1, 2), wanted)) == 1.0
    assert float(relative_error(wanted, wanted)) == 0.0
    assert float(relative_error(10 * wanted / 2, 10 * wanted)) == pytest.approx(0.25)


# ---- Once a study ------------------------------------------------------------------------------------


def weights(evaluator):
    return {name: tensor.clone() for name, tensor in evaluator._model.state_dict().items()}


def test_it_goes_on_after_a_kill(make_evaluator, tmp_path, prepared):
    def kill(spent, metric):
        if spent >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_evaluator().prepare(tmp_path, seed=1, progress=kill)
    calls = []
    again = make_evaluator()
    again.prepare(tmp_path, seed=1, progress=lambda *call: calls.append(call))
    assert [spent for spent, _ in calls] == [3.0]
    expected = weights(prepared)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(again).items())
    one, other = (dataclasses.replace(e.shared_training(), seconds=0.0) for e in (again, prepared))
    assert one == other
    names = sorted(path.name for path in (tmp_path / "blockwise").iterdir())
    assert names == ["supernet.json", "supernet.safetensors"]


def test_what_has_learnt_is_not_taught_again(make_evaluator, prepared, study, space):
    calls = []
    again = make_evaluator(quality="loss", finetune_epochs=1)  # the same replacements serve these
    again.prepare(study, seed=1, progress=lambda *call: calls.append(call))
    assert not calls
    assert again.shared_training() == prepared.shared_training()
    with pytest.raises(TaskError, match="training differ"):
        make_evaluator(training={"lr": 1e-4}).prepare(study, seed=1)


def test_loss_as_quality(make_evaluator, prepared, study, space):
    by_loss = make_evaluator(quality="loss")
    by_loss.prepare(study, seed=1)
    found = by_loss.evaluate(architecture(space, "all_deltanet"), seed=0)
    expected = prepared.evaluate(architecture(space, "all_deltanet"), seed=0)
    assert found.quality == -expected.metrics["loss"]


def test_finetuning_trains_mixers_only_and_helps(make_evaluator, prepared, study, space):
    tuned = make_evaluator(finetune_epochs=2)
    tuned.prepare(study, seed=1)
    before = weights(tuned)
    plain = prepared.evaluate(architecture(space, "all_sliding_window_window2"), seed=0)
    found = tuned.evaluate(architecture(space, "all_sliding_window_window2"), seed=0)
    assert found.quality > plain.quality
    assert found.budget == 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(tuned).items()), "parts were changed"


def test_hints_are_of_what_will_be_done(make_evaluator):
    evaluator = make_evaluator()
    assert 0 < evaluator.preparation_hint_s() < 60
    assert evaluator._model is None
    assert 0 < make_evaluator(finetune_epochs=2).cost_hint_s() < 60


# ---- A full training afterwards --------------------------------------------------------------------------


def test_full_trainings_start_from_the_parts_and_keep_what_is_frozen(prepared, space, task, tmp_path):
    config = {"mixer1": "deltanet", "mixer2": "keep"}
    network = prepared.initial(space.architecture(space.genotype(config)))
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    plain = space.initial(config).state_dict()
    assert not torch.equal(start["branches.0.body.inputs.weight"], plain["branches.0.body.inputs.weight"])
    task.train(network, 1, seed=0)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, start[name])}
    assert changed == {name for name, p in network.named_parameters() if p.requires_grad}
    assert all(".body." in name for name in changed)


def test_a_full_training_goes_on_after_a_kill(prepared, space, task, tmp_path):
    def kill(spent, metric):
        raise KeyboardInterrupt

    found = architecture(space, "all_deltanet")
    undisturbed = prepared.initial(found)
    task.train(undisturbed, 2, seed=3)
    with pytest.raises(KeyboardInterrupt):
        task.train(prepared.initial(found), 2, seed=3, checkpoint=tmp_path, progress=kill)
    again = prepared.initial(found)
    task.train(again, 2, seed=3, checkpoint=tmp_path)
    expected = undisturbed.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())


# ---- The search ------------------------------------------------------------------------------------------


class Milliseconds(ToyLatency):
    """Attention costs 3, everything else 1."""

    def predict(self, genotypes):
        mean = np.where(genotypes == 0, 3.0, 1.0).sum(axis=1)
        return mean, np.full(len(mean), 1e-6)


def test_attention_stays_where_its_replacement_hurts_most(prepared, space):
    limit_ms = 4.5  # room for one attention out of two
    problem = Problem(space, ParetoObjective(("quality",), latency_ms=limit_ms), Milliseconds(space), limit_ms)
    scores = {}

    def quality(rows):
        for row in rows:
            key = space.keys(row[None])[0]
            if key not in scores:
                scores[key] = prepared.evaluate(space.architecture(row), seed=0).quality
        return np.array([scores[space.keys(row[None])[0]] for row in rows])

    search = simulate(IntegerProgram, problem, quality, evaluations=1 + 4 + 2)
    best = max((trial for trial in search.history.evaluated if trial.violation <= 0), key=lambda t: t.quality)
    rows = space.enumerate()
    allowed = rows[problem.violation(rows) <= 0]
    kept = space.config(best.genotype)
    assert list(kept.values()).count("keep") == 1
    singles = {
        place: max(
            quality(np.stack([space.genotype({**space.named["parent"], place: other})]))[0]
            for other in ("deltanet", "sliding_window_window2")
        )
        for place in ("mixer1", "mixer2")
    }
    hurts_most = min(singles, key=singles.__getitem__)
    assert kept[hurts_most] == "keep"
    assert best.quality >= np.sort(quality(allowed))[-2]


# ---- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "quality.epochs"),
        ({"finetune_epochs": -1}, "quality.finetune_epochs"),
        ({"quality": "speed"}, "quality.quality"),
        ({"training": {"batch_size": 3}}, "quality.training.batch_size"),
        ({"finetuning": {"no": 3}}, "unknown key"),
        ({"threads": 0}, "quality.threads"),
    ],
)
def test_bad_settings_are_refused(make_evaluator, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_evaluator(**arguments)


def test_spaces_without_a_trained_model_are_refused(task):
    with pytest.raises(ConfigError, match="does not start from a trained model"):
        BlockwiseEvaluator(TinyElasticSpace(), task)


def test_evaluating_before_preparing_is_refused(make_evaluator, space):
    with pytest.raises(TaskError, match="prepare"):
        make_evaluator().evaluate(architecture(space, "parent"), seed=0)
