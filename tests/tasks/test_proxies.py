"""Each proxy against what its paper's formula gives by hand or by loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from gnomon.tasks.proxies.az_nas import Expressivity, Trainability, channel_norm, eigenvalue_entropy
from gnomon.tasks.proxies.base import DEGENERATE, Minibatch, responds
from gnomon.tasks.proxies.blocks import blocks
from gnomon.tasks.proxies.fisher import Fisher
from gnomon.tasks.proxies.gradients import GradNorm, Grasp, Plain, Snip
from gnomon.tasks.proxies.jacobian import JacobCov, eigenvalue_score
from gnomon.tasks.proxies.relu_codes import NWOT, NWOTPreactivation
from gnomon.tasks.proxies.sizes import L2Norm, MACs, Parameters
from gnomon.tasks.proxies.synflow import SynFlow
from gnomon.tasks.proxies.zico import ZiCo


def make_net(seed=0):
    """Twelve pixels, a convolution, ReLU, a linear layer; no batch norm, so that loops are easy."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 2 * 3, 3))


def make_batch(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Minibatch(
        torch.randn(count, 1, 3, 4, generator=generator), torch.randint(0, 3, (count,), generator=generator)
    )


def loss_at(weights, batch, dtype=torch.float64):
    """The loss of :func:`make_net` with other weights, written out."""
    net = make_net().to(dtype)
    with torch.no_grad():
        net[0].weight.copy_(torch.as_tensor(weights[:8]).reshape(2, 1, 2, 2))
        net[3].weight.copy_(torch.as_tensor(weights[8:]).reshape(3, 12))
        logits = net(batch.inputs.to(dtype))
        chosen = torch.log_softmax(logits, 1)[torch.arange(len(logits)), batch.labels]
        return -float(chosen.mean())


def flat_weights(net):
    return torch.cat([net[0].weight.flatten(), net[3].weight.flatten()]).detach().double().numpy()


def numeric_gradient(weights, batch, step=1e-6):
    """By central differences, one weight after the other."""
    found = np.zeros(len(weights))
    for i in range(len(weights)):
        offset = np.zeros(len(weights))
        offset[i] = step
        found[i] = (loss_at(weights + offset, batch) - loss_at(weights - offset, batch)) / (2 * step)
    return found


@pytest.fixture(scope="module")
def differences():
    weights = flat_weights(make_net())
    return weights, numeric_gradient(weights, make_batch())


def test_grad_norm_is_the_sum_of_the_layers_norms(differences):
    _, gradient = differences
    wanted = np.linalg.norm(gradient[:8]) + np.linalg.norm(gradient[8:])
    assert GradNorm().score(make_net(), [make_batch()]) == pytest.approx(wanted, rel=1e-4)


def test_snip_and_plain_are_weights_times_gradients(differences):
    weights, gradient = differences
    assert Snip().score(make_net(), [make_batch()]) == pytest.approx(np.abs(weights * gradient).sum(), rel=1e-4)
    assert Plain().score(make_net(), [make_batch()]) == pytest.approx((weights * gradient).sum(), rel=1e-3)


def test_grasp_is_a_hessian_product(differences):
    weights, gradient = differences
    step = 1e-4
    product = (
        numeric_gradient(weights + step * gradient, make_batch())
        - numeric_gradient(weights - step * gradient, make_batch())
    ) / (2 * step)
    assert Grasp().score(make_net(), [make_batch()]) == pytest.approx(-(weights * product).sum(), rel=1e-2)


def test_zico_by_loops():
    batches = [make_batch(seed=0), make_batch(seed=1), make_batch(seed=2)]
    weights = flat_weights(make_net())
    gradients = np.stack([numeric_gradient(weights, batch) for batch in batches])
    wanted = 0.0
    for part in (slice(0, 8), slice(8, None)):
        total = 0.0
        for column in gradients[:, part].T:
            deviation = math.sqrt(np.mean((column - column.mean()) ** 2))
            if deviation > 1e-9:  # central differences of a dead unit are not exactly zero
                total += np.mean(np.abs(column)) / deviation
        wanted += math.log(total)
    assert ZiCo().score(make_net(), batches) == pytest.approx(wanted, rel=1e-3)


def test_zico_of_equal_minibatches_has_nothing_to_say():
    assert ZiCo().score(make_net(), [make_batch(), make_batch()]) == DEGENERATE


def test_fisher_by_loops():
    net, batch = make_net(), make_batch()
    features = net[0](batch.inputs).detach().requires_grad_(True)
    logits = net[3](torch.flatten(torch.relu(features), 1))
    logits.retain_grad()
    nn.functional.cross_entropy(logits, batch.labels).backward()
    wanted = 0.0
    for channel in range(2):
        sums = [float((features[n, channel] * features.grad[n, channel]).sum().detach()) for n in range(5)]
        wanted += 0.5 * np.mean(np.square(sums))
    for output in range(3):
        wanted += 0.5 * np.mean([float(logits[n, output] * logits.grad[n, output]) ** 2 for n in range(5)])
    assert Fisher().score(net, [batch]) == pytest.approx(wanted, rel=1e-5)


def test_synflow_of_a_chain_is_known():
    """R = |a| |b| x 1 for one weight a layer, so that each layer gives |a b|."""
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1), nn.ReLU(), nn.Flatten(), nn.Linear(1, 1, bias=False)
    )
    with torch.no_grad():
        net[0].weight.fill_(-3.0)
        net[4].weight.fill_(0.5)
    assert SynFlow().score(net, [Minibatch(torch.zeros(2, 1, 1, 1), torch.zeros(2))]) == pytest.approx(2 * 1.5)


def test_synflow_is_homogeneous_and_does_not_overflow():
    batch = make_batch()
    score = SynFlow().score(make_net_without_bias(1.0), [batch])
    assert SynFlow().score(make_net_without_bias(10.0), [batch]) == pytest.approx(100 * score, rel=1e-6)
    assert SynFlow().score(make_net_without_bias(1e30), [batch]) == pytest.approx(1e60 * score, rel=1e-6)


def make_net_without_bias(factor):
    net = make_net()
    with torch.no_grad():
        net[3].bias.zero_()
        for parameter in net.parameters():
            parameter.mul_(factor)
    return net


def test_jacob_cov_by_numpy():
    net, batch = make_net(), make_batch()
    rows = []
    for image in batch.inputs:
        x = image[None].clone().requires_grad_(True)
        net(x).sum().backward()
        rows.append(x.grad.flatten().double().numpy())
    values = np.linalg.eigvalsh(np.corrcoef(np.stack(rows))).clip(min=0) + 1e-5
    assert JacobCov().score(net, [batch]) == pytest.approx(-np.sum(np.log(values) + 1 / values), rel=1e-3)


def test_jacob_cov_is_best_for_uncorrelated_examples():
    waves = np.array([[1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=float)
    assert eigenvalue_score(waves) == pytest.approx(-3 * (math.log(1 + 1e-5) + 1 / (1 + 1e-5)))
    assert eigenvalue_score(waves) > eigenvalue_score(waves + [[5], [0], [0]] * np.array([0, 1, 2, 3]))
    assert eigenvalue_score(np.ones((3, 4))) == DEGENERATE


@pytest.mark.parametrize("proxy", [NWOT(), NWOTPreactivation()])
def test_nwot_by_loops(proxy):
    net, batch = make_net(), make_batch()
    values = [net[0](batch.inputs).flatten(1)]
    if isinstance(proxy, NWOTPreactivation):
        values.append(net(batch.inputs))
    kernel = np.zeros((5, 5))
    for layer in values:
        codes = (layer > 0).numpy()
        for i in range(5):
            for j in range(5):
                kernel[i, j] += sum(a == b for a, b in zip(codes[i], codes[j], strict=True))
    assert proxy.score(net, [batch]) == pytest.approx(math.log(abs(np.linalg.det(kernel))), rel=1e-5)


def test_nwot_of_equal_examples_is_degenerate():
    inputs = make_batch(1).inputs.repeat(4, 1, 1, 1)
    assert NWOT().score(make_net(), [Minibatch(inputs, torch.zeros(4, dtype=torch.long))]) == DEGENERATE


def test_sizes_are_the_spaces_costs():
    from gnomon.search_spaces.nasbench201 import NASBench201

    space = NASBench201((3, 8, 8), classes=5, channels=4, cells=1)
    rows = space.sample(4, np.random.default_rng(0))
    batch = Minibatch(torch.randn(3, 3, 8, 8), torch.zeros(3, dtype=torch.long))
    models = [space.build(space.config(row)) for row in rows]
    np.testing.assert_allclose([MACs().score(model, [batch]) for model in models], space.costs(rows).macs)
    np.testing.assert_allclose([Parameters().score(model, [batch]) for model in models], space.costs(rows).parameters)


def test_l2_norm_grows_with_the_weights():
    net = make_net()
    wanted = float(net[0].weight.norm() + net[3].weight.norm())
    assert L2Norm().score(net, [make_batch()]) == pytest.approx(wanted, rel=1e-6)


def test_entropy_of_features():
    generator = torch.Generator().manual_seed(0)
    independent = torch.randn(64, 4, 16, 16, generator=generator)
    assert eigenvalue_entropy(independent) == pytest.approx(math.log(4), abs=1e-2)
    assert eigenvalue_entropy(independent[:, :1].repeat(1, 4, 1, 1)) == pytest.approx(0, abs=1e-6)
    assert eigenvalue_entropy(torch.ones(2, 3, 4, 4)) == 0


def test_norm_of_a_block_is_its_matrix():
    """A 1x1 convolution sends noise v back as W^T v; averaged over enough noise that is W^T."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    noise = torch.bernoulli(torch.full((64, 2, 16, 16), 0.5), generator=generator) * 2 - 1
    arrived = torch.einsum("oc,bohw->bchw", weight, noise)
    assert channel_norm(arrived, noise) == pytest.approx(2.0, rel=2e-2)


def test_trainability_is_best_where_norms_are_one():
    batch = Minibatch(torch.zeros(8, 3, 8, 8), torch.zeros(8, dtype=torch.long))
    assert Trainability().score(_deep(skip=True), [batch]) > Trainability().score(_deep(skip=False, gain=30.0), [batch])
    assert Trainability().score(_deep(skip=False), [batch]) < 0


def test_expressivity_grows_with_channels():
    batch = Minibatch(torch.zeros(8, 3, 8, 8), torch.zeros(8, dtype=torch.long))
    assert Expressivity().score(_deep(width=16), [batch]) > Expressivity().score(_deep(width=4), [batch])


class _Block(nn.Module):
    def __init__(self, channels, width, skip, gain):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.skip, self.gain = skip and channels == width, gain

    def forward(self, x):
        y = self.gain * self.body(x)
        return 0.9 * x + 0.1 * y if self.skip else y


def _deep(width=8, skip=False, gain=1.0):
    torch.manual_seed(0)
    stages = [_Block(3 if i == 0 else width, width, skip, gain) for i in range(4)]
    return nn.Sequential(nn.Sequential(*stages), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))


def test_blocks_are_the_longest_row_of_composites():
    model = _deep()
    assert blocks(model) == list(model[0])
    net = make_net()
    assert blocks(net) == [net[0], net[3]], "without composites, layers with weights are the blocks"


def test_networks_that_answer_all_alike_do_not_respond():
    net, batch = make_net(), make_batch()
    assert responds(net, batch)
    with torch.no_grad():
        net[0].weight.zero_()
    assert not responds(net, batch)
    with torch.no_grad():
        net[0].weight.fill_(math.nan)
    assert not responds(net, batch)
