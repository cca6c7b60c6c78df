import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from gnomon.errors import ConfigError, GnomonError, SchemaError, StudyError, TaskError
from gnomon.tasks.augmentation import Augmentation
from gnomon.tasks.datasets import Digits
from gnomon.tasks.image_classification import ImageClassification
from gnomon.tasks.scoring import classification_metrics
from gnomon.tasks.torch_state import derived_seed, seeded, torch_threads
from gnomon.tasks.training import WeightAverage, make_optimizer
from gnomon.tasks.training_settings import TrainingSettings


class Killed(BaseException):
    pass


def killer(after):
    def progress(spent, metric):
        if spent >= after:
            raise Killed

    return progress


# ---- settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimiser": "sgd"}, r"task\.training\.optimiser.*unknown key.*optimizer"),
        ({"optimizer": "lion"}, "adamw, sgd"),
        ({"schedule": "step"}, "one_cycle"),
        ({"lr": 0}, "positive"),
        ({"lr": "fast"}, "a number"),
        ({"batch_size": 0}, "from 1"),
        ({"batch_size": 2.5}, "an integer"),
        ({"flip": 1}, "true or false"),
        ({"shift": True}, "an integer"),
        ({"label_smoothing": 1.0}, "below 1"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"time_limit_s": -1}, "positive seconds"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainingSettings.of(settings)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_schedule_rises_to_lr_and_falls_to_nearly_nothing(schedule):
    settings = TrainingSettings(schedule=schedule, lr=0.1, warmup=0.3)
    rates = [settings.lr_at(step, 1000) for step in range(1000)]
    assert max(rates) == pytest.approx(0.1, rel=1e-3)
    assert 290 <= int(np.argmax(rates)) <= 310
    assert all(rate > 0 for rate in rates)
    assert rates[-1] < 1e-4
    assert (np.diff(rates[:299]) > 0).all()
    assert (np.diff(rates[301:]) < 0).all()


def test_one_cycle_is_torchs():
    settings = TrainingSettings(lr=0.1, warmup=0.3)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=1000, cycle_momentum=False)
    expected = []
    for _ in range(1000):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    # Torch takes the start of a step, this the middle.
    np.testing.assert_allclose([settings.lr_at(step, 1000) for step in range(1000)], expected, atol=1e-3)


def test_only_matrices_and_kernels_decay():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    decayed, rest = make_optimizer(model, TrainingSettings(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert rest["weight_decay"] == 0.0
    assert [p.ndim for p in rest["params"]] == [1, 1, 1, 1]


# ---- parts ----------------------------------------------------------------------------------


def test_shift_moves_every_image_by_at_most_that_much_and_fills_with_zeros():
    images = torch.zeros(64, 1, 7, 7, dtype=torch.uint8)
    images[:, :, 3, 3] = 9
    batch = Augmentation(images, 2, False).batch(torch.arange(64), torch.Generator().manual_seed(0))
    assert batch.shape == images.shape
    assert (batch.sum((1, 2, 3)) == 9).all()
    places = batch.reshape(64, 49).argmax(1)
    rows, columns = places // 7, places % 7
    assert set(rows.tolist()) == set(columns.tolist()) == {1, 2, 3, 4, 5}
    assert len(set(places.tolist())) > 10, "images must move independently"


def test_flip_mirrors_about_half():
    images = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 1, 4).repeat(200, 1, 1, 1)
    batch = Augmentation(images, 0, True).batch(torch.arange(200), torch.Generator().manual_seed(0))
    mirrored = (batch == images.flip(3)).all(dim=(1, 2, 3))
    assert 70 < int(mirrored.sum()) < 130
    assert (batch[~mirrored] == images[~mirrored]).all()


def test_no_augmentation_gives_the_images():
    images = torch.randint(0, 255, (5, 3, 4, 4), dtype=torch.uint8)
    indices = torch.tensor([3, 0])
    assert (Augmentation(images, 0, False).batch(indices, torch.Generator()) == images[indices]).all()


def test_metrics_are_torchs():
    logits, labels = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32), np.arange(50) % 4
    found = classification_metrics(logits, labels)
    assert found["loss"] == pytest.approx(
        float(nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))), rel=1e-6
    )
    assert found["accuracy"] == (logits.argmax(1) == labels).mean()


def test_nan_outputs_are_wrong_answers():
    logits = np.zeros((4, 2), np.float32)
    logits[0] = np.nan
    assert classification_metrics(logits, np.zeros(4, np.int64))["accuracy"] == 0.75


def test_weight_average_is_the_moving_average():
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.9)
    expected = model.weight.item()
    for step in range(1, 200):
        nn.init.constant_(model.weight, step)
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    average.copy_to(model)
    assert model.weight.item() == pytest.approx(expected, rel=1e-5)


def test_seeds_are_unrelated_and_state_comes_back():
    assert len({derived_seed(a, b) for a in range(30) for b in range(30)}) == 900
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)

    def fail():
        with seeded(5), torch_threads(1):
            torch.rand(7)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (torch.rand(3) == expected).all()


# ---- training -------------------------------------------------------------------------------


def test_it_learns(make_task, tiny_model):
    model, task = tiny_model(), make_task()
    before = task.score(model, "test")["accuracy"]
    assert before < 0.6
    task.train(model, 10, seed=0)
    assert task.score(model, "test")["accuracy"] > 0.9


def test_fractional_budget_is_a_part_of_an_epoch(make_task, tiny_model):
    spends = []
    task = make_task()
    steps_per_epoch = task.data.splits.sizes["train"] // 16
    evaluation = task.train(tiny_model(), 1.5, seed=0, progress=lambda spent, _: spends.append(spent))
    assert len(evaluation.curve) == 2
    assert spends == [1.0, evaluation.budget]
    assert evaluation.budget == pytest.approx(1.5, abs=1 / steps_per_epoch)
    assert evaluation.budget <= 1.5


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resume_from_any_epoch_is_exact(make_task, tiny_model, tmp_path, after, optimizer):
    task = make_task(optimizer=optimizer, ema_decay=0.95, shift=1)
    undisturbed, resumed = tiny_model(), tiny_model()
    expected = task.train(undisturbed, 4, seed=2)
    with pytest.raises(Killed):
        task.train(tiny_model(), 4, seed=2, checkpoint=tmp_path, progress=killer(after))
    torch.rand(100)
    found = task.train(resumed, 4, seed=2, checkpoint=tmp_path)
    assert (found.curve, found.metrics) == (expected.curve, expected.metrics)
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_kill_between_the_two_files_of_a_checkpoint(make_task, tiny_model, tmp_path, monkeypatch):
    task = make_task()
    expected = task.train(tiny_model(), 3, seed=2)
    written = []

    def write_json(*args):
        written.append(1)
        if len(written) == 2:
            raise Killed
        return original(*args)

    from gnomon.tasks import checkpoint as module

    original = module.write_json
    monkeypatch.setattr(module, "write_json", write_json)
    with pytest.raises(Killed):
        task.train(tiny_model(), 3, seed=2, checkpoint=tmp_path)
    assert len(list(tmp_path.glob("epoch-*.safetensors"))) == 2
    found = task.train(tiny_model(), 3, seed=2, checkpoint=tmp_path)
    assert found.curve == expected.curve
    assert len(list(tmp_path.iterdir())) == 2, "files of old epochs must go"


def test_damaged_checkpoints_are_refused_with_what_to_do(make_task, tiny_model, tmp_path):
    task = make_task()
    task.train(tiny_model(), 1, seed=0, checkpoint=tmp_path)
    (tensors,) = tmp_path.glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:100])
    with pytest.raises(SchemaError, match="Delete the folder"):
        task.train(tiny_model(), 1, seed=0, checkpoint=tmp_path)
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(SchemaError, match=r"training\.json"):
        task.train(tiny_model(), 1, seed=0, checkpoint=tmp_path)


def test_checkpoint_says_what_differs(make_task, tiny_model, tmp_path):
    make_task().train(tiny_model(), 1, seed=0, checkpoint=tmp_path)
    with pytest.raises(TaskError, match="budget"):
        make_task().train(tiny_model(), 2, seed=0, checkpoint=tmp_path)
    with pytest.raises(TaskError, match="training"):
        make_task(lr=0.1).train(tiny_model(), 1, seed=0, checkpoint=tmp_path)


def test_checkpoint_of_another_architecture_is_refused(make_task, tiny_model, tiny_space, tmp_path):
    make_task().train(tiny_model(), 1, seed=0, checkpoint=tmp_path)
    other = tiny_space.build({"width": 4, "kernel": 3})
    with pytest.raises(SchemaError, match="another architecture"):
        make_task().train(other, 1, seed=0, checkpoint=tmp_path)


def test_checkpoint_where_nothing_can_be_written(make_task, tiny_model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StudyError, match="cannot write"):
        make_task().train(tiny_model(), 1, seed=0, checkpoint=tmp_path / "file" / "c")


def test_checkpoint_state_is_readable_json(make_task, tiny_model, tmp_path):
    make_task().train(tiny_model(), 2, seed=0, checkpoint=tmp_path)
    state = json.loads((tmp_path / "training.json").read_text())
    assert state["schema"] == "gnomon.training_checkpoint/1"
    assert state["epoch"] == 2
    assert len(state["curve"]) == 2


def test_time_limit_ends_training_after_an_epoch(make_task, tiny_model):
    evaluation = make_task(time_limit_s=1e-9).train(tiny_model(), 5, seed=0)
    assert evaluation.budget == 1.0
    assert len(evaluation.curve) == 1


def test_divergence_is_a_clear_error(make_task, tiny_model):
    with pytest.raises(TaskError, match=r"diverged.*epoch 1.*smaller rate"):
        make_task(optimizer="sgd", lr=1e30, schedule="constant", warmup=0.0).train(tiny_model(), 2, seed=0)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3)], "cannot run on inputs"),
        ([nn.Flatten(), nn.Linear(64, 5)], "one logit per class"),
        ([nn.Flatten()], "no parameters"),
    ],
)
def test_models_that_do_not_fit_are_refused(make_task, layers, message):
    with pytest.raises(TaskError, match=message):
        make_task().train(nn.Sequential(*layers), 1, seed=0)


def test_batch_larger_than_the_data(make_task, tiny_model):
    evaluation = make_task(batch_size=100_000).train(tiny_model(), 2, seed=0)
    assert evaluation.budget == 2.0


def test_tied_weights_survive_a_checkpoint(make_task, tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 3)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.c(self.b(self.a(x.flatten(1)).relu()).relu())

    task = make_task()
    with seeded(0):
        models = [Tied() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    expected = task.train(models[0], 2, seed=0)
    with pytest.raises(Killed):
        task.train(models[1], 2, seed=0, checkpoint=tmp_path, progress=killer(1))
    assert task.train(models[1], 2, seed=0, checkpoint=tmp_path).curve == expected.curve


def test_negative_seed_is_refused(make_task, tiny_model):
    with pytest.raises(GnomonError, match="seed"):
        make_task().train(tiny_model(), 1, seed=-1)


def test_cost_hint_does_not_touch_the_model(make_task, tiny_model):
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hint = make_task().cost_hint_s(model, 10)
    assert hint > 0
    assert math.isfinite(hint)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_data_must_be_a_source():
    with pytest.raises(ConfigError, match=r"task\.data"):
        ImageClassification("mnist")


# ---- ONNX -----------------------------------------------------------------------------------


@pytest.fixture
def fixed_batch_onnx(tmp_path, make_task):
    """Flatten and multiply, for exactly 4 examples."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "fixed.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path, weight


def test_onnx_of_fixed_batch_size_is_scored_in_chunks(fixed_batch_onnx, make_task):
    path, weight = fixed_batch_onnx
    task = make_task()
    logits = task.data.normalised("test").reshape(-1, 64) @ weight
    assert len(logits) % 4 != 0, "the last chunk should be incomplete"
    expected = classification_metrics(logits, task.data.labels("test"))
    found = task.score(path, "test")
    assert found["accuracy"] == expected["accuracy"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_wrong_onnx_files_are_refused(fixed_batch_onnx, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    task = ImageClassification(Digits())
    with pytest.raises(TaskError, match=r"cannot load .*bad\.onnx"):
        task.score(tmp_path / "bad.onnx", "test")
    with pytest.raises(TaskError, match="one logit per class"):
        task.score(fixed_batch_onnx[0], "test")
