import pytest
import torch
from torch import nn

from gnomon.tasks.torch_state import seeded
from gnomon.tasks.weight_sharing.batch_norm import calibration_batches, has_batch_norm, recalibrated
from gnomon.tasks.weight_sharing.distillation import dropout, soft_loss


@pytest.fixture
def data(make_task):
    return make_task().training_data()


@pytest.fixture
def model():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3)
        ).train()


def test_statistics_are_the_mean_over_the_batches(model, data):
    batches = calibration_batches(data, 3, 0)
    features = [model[0](inputs) for inputs, _ in batches]
    mean = torch.stack([x.mean((0, 2, 3)) for x in features]).mean(0)
    var = torch.stack([x.var((0, 2, 3), correction=1) for x in features]).mean(0)
    with recalibrated(model, data, batches):
        torch.testing.assert_close(model[1].running_mean, mean)
        torch.testing.assert_close(model[1].running_var, var)
        assert not any(module.training for module in model.modules())


def test_all_is_as_it_was_afterwards(model, data):
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]

    def fail():
        with recalibrated(model, data, calibration_batches(data, 2, 0)):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert model[1].momentum == 0.1


def test_a_model_without_batch_norm_is_only_put_in_evaluation_mode(data):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).train()
    assert not has_batch_norm(model)
    with recalibrated(model, data, ()):
        assert not model.training
    assert model.training


def test_batches_are_those_of_the_seed(data):
    first, same, other = (calibration_batches(data, 2, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, same, strict=True))
    assert not torch.equal(first[0][0], other[0][0])
    assert len(calibration_batches(data, 10_000, 0)) == data.batches_per_epoch


def test_soft_loss_is_the_divergence():
    logits, teacher = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.eye(5, 3)
    p, q = teacher.softmax(1), logits.softmax(1)
    torch.testing.assert_close(soft_loss(logits, teacher), (p * (p / q).log()).sum(1).mean())
    assert soft_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


def test_no_gradient_flows_into_the_teacher():
    logits, teacher = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    soft_loss(logits, teacher).backward()
    assert teacher.grad is None
    assert logits.grad is not None


def test_dropout_is_off_inside_only(model):
    with dropout(model, enabled=False):
        assert not model[2].training
        assert model[1].training
    assert model[2].training
    with dropout(model, enabled=True):
        assert model[2].training
