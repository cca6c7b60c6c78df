import json

import pytest
import torch

from gnomon.errors import ConfigError, SchemaError, TaskError
from gnomon.records.shared_training import SharedTraining
from gnomon.search_spaces.extremes import largest, smallest
from gnomon.tasks.supernet import SupernetTrainer
from gnomon.tasks.torch_state import seeded
from gnomon.tasks.training_settings import TrainingSettings
from gnomon.tasks.weight_sharing.progressive import Progressive
from gnomon.tasks.weight_sharing.sandwich import Sandwich
from gnomon.tasks.weight_sharing.single_path import SinglePath
from tests.tasks.doubles.tiny_elastic import TinyElasticSpace

RULES = {
    "single_path": SinglePath(),
    "sandwich": Sandwich(random=1),
    "progressive": Progressive(shares=(0.4, 0.2, 0.2, 0.2), networks=1),
}


class Killed(BaseException):
    pass


@pytest.fixture
def space():
    return TinyElasticSpace(dropout=0.1)


@pytest.fixture
def make_model(space):
    def make():
        with seeded(0):
            return space.elastic()

    return make


@pytest.fixture
def make_trainer(space, make_model, make_task):
    def make(rule=RULES["sandwich"], *, epochs=3, seed=5, model=None, processes=1, **training):
        task = make_task(shift=1, **training)
        model = make_model() if model is None else model
        data = task.training_data()
        settings = TrainingSettings.of(task.training)
        return SupernetTrainer(
            model, space, data, settings, rule, epochs=epochs, seed=seed, identity={}, processes=processes
        )

    return make


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def without_seconds(record):
    return {name: value for name, value in record.to_dict().items() if name != "seconds"}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_it_learns_and_says_so(make_trainer, make_model, rule):
    model = make_model()
    trainer = make_trainer(rule, epochs=8, model=model)
    calls = []
    record = trainer.run(progress=lambda spent, metric: calls.append((spent, metric)))
    assert record.curves["largest"][-1] > 0.8
    assert record.curves["smallest"][-1] > 0.4  # guessing: 0.33
    assert len(record.losses) == 8
    assert calls == [(float(epoch), metric) for epoch, metric in enumerate(record.curves["largest"], start=1)]
    assert not model.training
    assert SharedTraining.from_json(record.to_json()) == record


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("after", [1, 2])
def test_resume_from_any_epoch_is_exact(make_trainer, make_model, tmp_path, rule, after):
    undisturbed, resumed = make_model(), make_model()
    expected = make_trainer(rule, model=undisturbed, ema_decay=0.9).run()

    def kill(spent, metric):
        if spent >= after:
            raise Killed

    with pytest.raises(Killed):
        make_trainer(rule, ema_decay=0.9).run(tmp_path, kill)
    torch.rand(100)
    found = make_trainer(rule, model=resumed, ema_decay=0.9).run(tmp_path)
    assert without_seconds(found) == without_seconds(expected)
    for name, tensor in weights(undisturbed).items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_sgd_resumes_too(make_trainer, make_model, tmp_path):
    undisturbed, resumed = make_model(), make_model()
    make_trainer(RULES["single_path"], model=undisturbed, optimizer="sgd", lr=0.05).run()

    def kill(spent, metric):
        raise Killed

    with pytest.raises(Killed):
        make_trainer(RULES["single_path"], optimizer="sgd", lr=0.05).run(tmp_path, kill)
    make_trainer(RULES["single_path"], model=resumed, optimizer="sgd", lr=0.05).run(tmp_path)
    assert all(torch.equal(t, resumed.state_dict()[name]) for name, t in weights(undisturbed).items())


def test_seed_decides(make_trainer, make_model):
    models = [make_model() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        make_trainer(epochs=1, seed=seed, model=model).run()
    first, same, other = (weights(model) for model in models)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_training_leaves_the_process_as_it_was(make_trainer):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    make_trainer(epochs=1).run()
    assert torch.equal(torch.rand(2), expected)


def test_choices_are_counted(make_trainer, space):
    record = make_trainer(epochs=2).run()
    assert record.networks == 3 * record.steps
    by_name = {row.decision: row for row in record.choices}
    assert [d.name for d in space.decisions] == list(by_name)
    for decision in space.decisions:
        if not decision.active_when:
            assert sum(by_name[decision.name].trained) == record.networks
    # The sandwich trains the smallest and the largest network at each step.
    for end in (largest(space), smallest(space)):
        for name, choice in space.config(end).items():
            row = by_name[name]
            assert row.trained[row.choices.index(str(choice))] >= record.steps


def test_single_path_trains_one_network_a_step(make_trainer):
    record = make_trainer(SinglePath(), epochs=1).run()
    assert record.networks == record.steps


def test_checkpoint_of_another_training_is_refused(make_trainer, tmp_path):
    make_trainer(epochs=1).run(tmp_path)
    with pytest.raises(TaskError, match="rule"):
        make_trainer(SinglePath(), epochs=1).run(tmp_path)


def test_checkpoint_of_another_space_is_refused(make_trainer, tmp_path):
    make_trainer(epochs=1).run(tmp_path)
    other = TinyElasticSpace(classes=4)
    with pytest.raises(SchemaError, match="another space"):
        make_trainer(epochs=1, model=other.elastic()).run(tmp_path)


def test_checkpoint_is_json_and_safetensors(make_trainer, tmp_path):
    make_trainer(epochs=2).run(tmp_path)
    state = json.loads((tmp_path / "training.json").read_text())
    assert state["epoch"] == 2
    assert set(state["metrics"]) == {"largest", "smallest"}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_divergence_is_a_clear_error(make_trainer):
    with pytest.raises(TaskError, match=r"diverged.*quality\.training\.max_grad_norm"):
        make_trainer(optimizer="sgd", lr=1e30, schedule="constant", warmup=0.0).run()


def test_out_of_time_ends_after_an_epoch(make_trainer):
    assert make_trainer(time_limit_s=1e-9, epochs=4).run().epochs == 1


@pytest.mark.parametrize("field", ["epochs", "processes"])
def test_numbers_are_checked(make_trainer, field):
    with pytest.raises(TaskError, match=field):
        make_trainer(**{field: 0})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SinglePath(networks=0), "networks"),
        (lambda: Sandwich(random=-1), "random"),
        (lambda: Sandwich(distillation=1.5), "distillation"),
        (lambda: Progressive(shares=(0.5, 0.5)), "shares"),
        (lambda: Progressive(phases=("*kernel*",), shares=(0.5, 0.5)), "phases"),
        (lambda: Progressive(distillation=-1), "distillation"),
    ],
)
def test_bad_rules_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_progressive_sorts_channels_once_before_the_last_phase(make_trainer, make_model):
    model = make_model()
    sorted_at = []
    model.sort_channels = lambda: sorted_at.append(seen[0])
    seen = [0]
    forward = model.forward
    model.forward = lambda x: (seen.__setitem__(0, seen[0] + 1), forward(x))[1]
    record = make_trainer(RULES["progressive"], model=model, epochs=5).run()
    assert record.networks == record.steps  # one network a step, so forward passes count steps
    assert sorted_at == [round(0.8 * record.steps)]


def test_sorting_can_be_left_out(make_trainer, make_model):
    model = make_model()
    model.sort_channels = lambda: pytest.fail("sorted")
    make_trainer(Progressive(shares=(0.4, 0.2, 0.2, 0.2), networks=1, sort=False), model=model, epochs=2).run()
