"""Elastic convolution, batch norm and the sorting of channels."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from gnomon.errors import SpaceError
from gnomon.search_spaces.elastic import ElasticBatchNorm, ElasticConv2d, ElasticLinear, sort_channels
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.ofa_mobilenet import OFAMobileNet


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def agrees(layer, inputs):
    x = torch.randn(2, inputs, 9, 8)
    plain = layer.extract()
    torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=1e-6)
    return plain


@pytest.mark.parametrize("sharing", ["crop", "transform", "own"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize(("inputs", "outputs"), [(6, 4), (3, 4), (6, 1), (2, 3)])
def test_dense_convolution(inputs, outputs, kernel, sharing):
    layer = ElasticConv2d(6, 4, 7, stride=2, kernels=(3, 5, 7), sharing=sharing)
    for matrix in layer.smaller.values():
        nn.init.normal_(matrix)
    layer.resize(inputs, outputs, kernel)
    plain = agrees(layer, inputs)
    assert plain.weight.shape == (outputs, inputs, kernel, kernel)
    assert plain.padding == (kernel // 2, kernel // 2)


@pytest.mark.parametrize(("groups", "inputs", "outputs", "fewer"), [(8, 8, 8, 5), (4, 8, 12, 4), (2, 4, 6, 2)])
def test_grouped_convolution_loses_groups(groups, inputs, outputs, fewer):
    layer = ElasticConv2d(inputs, outputs, 3, groups=groups)
    layer.resize(in_channels=fewer)
    plain = agrees(layer, fewer)
    assert plain.groups == fewer // (inputs // groups)
    assert plain.out_channels == plain.groups * (outputs // groups)
    layer.resize(out_channels=plain.out_channels)
    assert layer.active[0] == fewer


def test_dilated_convolution_keeps_its_map():
    layer = ElasticConv2d(3, 3, 5, padding=4, dilation=2, kernels=(3, 5))
    x = torch.randn(1, 3, 12, 12)
    for kernel in (5, 3):
        layer.resize(kernel_size=kernel)
        assert layer(x).shape == x.shape
        agrees(layer, 3)


def test_kernel_transforms_start_as_crops_and_chain():
    layer = ElasticConv2d(2, 3, 7, kernels=(3, 5, 7), sharing="transform")
    layer.resize(kernel_size=3)
    torch.testing.assert_close(layer.sliced()[0], layer.weight[:, :, 2:5, 2:5], rtol=0, atol=1e-6)
    to_five, to_three = layer.smaller["5"], layer.smaller["3"]
    nn.init.normal_(to_five)
    nn.init.normal_(to_three)
    five = (layer.weight[:, :, 1:6, 1:6].flatten(2) @ to_five).unflatten(2, (5, 5))
    three = (five[:, :, 1:4, 1:4].flatten(2) @ to_three).unflatten(2, (3, 3))
    torch.testing.assert_close(layer.sliced()[0], three)


def test_kernels_of_their_own_leave_the_largest_without_gradient():
    layer = ElasticConv2d(2, 2, 5, groups=2, kernels=(3, 5), sharing="own")
    layer.resize(kernel_size=3)
    layer(torch.randn(1, 2, 6, 6)).sum().backward()
    assert layer.weight.grad is None
    assert layer.smaller["3"].grad is not None


def test_crops_and_channels_are_views():
    layer = ElasticConv2d(4, 4, 5, kernels=(3, 5))
    layer.resize(2, 3, 3)
    assert layer.sliced()[0].untyped_storage().data_ptr() == layer.weight.untyped_storage().data_ptr()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_moves_the_first_statistics_only(momentum):
    norm = ElasticBatchNorm(6, momentum=momentum)
    norm.resize(4)
    plain = norm.extract()
    assert type(plain) is nn.BatchNorm2d
    for _ in range(3):
        x = 2 * torch.randn(5, 4, 3, 3) + 1
        torch.testing.assert_close(norm(x), plain(x))
    torch.testing.assert_close(norm.running_mean[:4], plain.running_mean)
    torch.testing.assert_close(norm.running_var[:4], plain.running_var)
    assert torch.equal(norm.running_mean[4:], torch.zeros(2))
    assert torch.equal(norm.running_var[4:], torch.ones(2))
    x = torch.randn(5, 4, 3, 3)
    torch.testing.assert_close(norm.eval()(x), plain.eval()(x))


def test_sorting_keeps_the_function_and_orders_by_l1():
    expand, norm, depthwise, project = (
        nn.Conv2d(3, 8, 1),
        nn.BatchNorm2d(8),
        ElasticConv2d(8, 8, 5, groups=8, kernels=(3, 5), sharing="own"),
        nn.Conv2d(8, 4, 1),
    )
    model = nn.Sequential(expand, norm, nn.ReLU(), depthwise, project)
    for _ in range(3):
        model(torch.randn(4, 3, 6, 6) + 1)
    nn.init.normal_(norm.weight)
    x = torch.randn(2, 3, 6, 6)
    for kernel in (5, 3):
        depthwise.resize(kernel_size=kernel)
        expected = model.eval()(x)
        sort_channels([expand], [project], [norm, depthwise])
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)
    importance = project.weight.abs().sum((0, 2, 3))
    assert (importance.diff() <= 0).all()


def test_linear_layers_and_embeddings_are_sorted():
    embedding, hidden, first, second = nn.Embedding(5, 6), ElasticLinear(6, 7), nn.Linear(7, 2), nn.Linear(7, 3)
    tokens = torch.arange(5)
    expected = [reader(hidden(embedding(tokens))) for reader in (first, second)]
    sort_channels([embedding], [hidden])
    order = sort_channels([hidden], [first, second])
    assert sorted(order.tolist()) == list(range(7))
    for reader, before in zip((first, second), expected, strict=True):
        torch.testing.assert_close(reader(hidden(embedding(tokens))), before)


@pytest.mark.parametrize(
    ("space", "kernels"),
    [
        (lambda: MobileCNN((1, 12, 12), classes=4, width=0.25, blocks=3), (3, 5)),
        # A smaller kernel's matrix acts on each channel alike, so that it holds for all kernels here, too.
        (lambda: OFAMobileNet((3, 32, 32), classes=4, width=0.25), (3, 7)),
    ],
)
def test_sorted_supernets_answer_alike(space, kernels):
    space = space()
    model = space.elastic()
    x = torch.randn(3, *space.workload.input_shape)
    largest = {decision.name: decision.choices[-1] for decision in space.decisions}
    configs = [{n: k if n.endswith("kernel") else v for n, v in largest.items()} for k in kernels]
    model.select(configs[0])
    model.train()(x)
    expected = answers(model.eval(), configs, x)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.sort_channels()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(answers(model, configs, x), expected, rtol=1e-4, atol=1e-6)


def answers(model, configs, x):
    results = []
    for config in configs:
        model.select(config)
        results.append(model(x))
    return results


@pytest.mark.parametrize(
    ("action", "field"),
    [
        (lambda: ElasticConv2d(4, 3, 3).resize(in_channels=5), "in_channels"),
        (lambda: ElasticConv2d(4, 3, 3).resize(out_channels=0), "out_channels"),
        (lambda: ElasticConv2d(4, 3, 3).resize(kernel_size=1), "kernel_size"),
        (lambda: ElasticConv2d(4, 4, 3, groups=2).resize(in_channels=3), "in_channels"),
        (lambda: ElasticConv2d(4, 4, 3, groups=4).resize(2, 3), "in_channels"),
        (lambda: ElasticConv2d(4, 4, 5, kernels=(4, 5)), "kernels"),
        (lambda: ElasticConv2d(4, 4, 5, kernels=(3,)), "kernels"),
        (lambda: ElasticConv2d(4, 4, 5, kernels=(3, 5), sharing="some"), "sharing"),
        (lambda: ElasticBatchNorm(4).resize(5), "features"),
        (lambda: sort_channels([nn.ReLU()], [nn.Linear(3, 3)]), "module"),
        (lambda: sort_channels([nn.Linear(3, 4)], [nn.Conv2d(4, 4, 1, groups=4)]), "module"),
    ],
)
def test_what_is_wrong_is_named(action, field):
    with pytest.raises(SpaceError, match=field):
        action()


@pytest.mark.parametrize("move", [copy.deepcopy, lambda norm: norm.double(), lambda norm: _reassigned(norm)])
def test_statistics_are_the_modules_own_wherever_they_lie(move):
    norm = ElasticBatchNorm(6)
    norm.resize(4)
    norm(torch.randn(8, 4, 3, 3))
    moved = move(norm)
    before = moved.running_mean.clone()
    moved(torch.randn(8, 4, 3, 3, dtype=moved.weight.dtype) + 5)
    assert (moved.running_mean[:4] > before[:4] + 0.2).all()
    assert torch.equal(moved.running_mean[4:], before[4:])


def _reassigned(norm):
    norm.load_state_dict({name: tensor.clone() for name, tensor in norm.state_dict().items()}, assign=True)
    return norm


def test_what_was_selected_before_is_selected_again_also_in_a_copy():
    space = MobileCNN((1, 8, 8), classes=3, width=0.25, blocks=2)
    model = space.elastic().eval()
    x = torch.randn(2, 1, 8, 8)
    configs = [space.config(row) for row in space.sample(4, np.random.default_rng(0))]

    def answers(model):
        return [(model.select(config), model(x))[1] for config in configs]

    first = answers(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for answer, again in zip(first, answers(twin), strict=True):
        assert torch.equal(answer, again)
    assert all((answer == answer[0, 0]).all() for answer in answers(model)), "of weights that are all zero"
    for config, answer in zip(configs, first, strict=True):
        torch.testing.assert_close(twin.extract(config)(x), answer)
