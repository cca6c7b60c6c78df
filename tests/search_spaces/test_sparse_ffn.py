"""Linear layers of constant fan-in: what they compute, how they rewire, how they export."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnomon.errors import SpaceError
from gnomon.search_spaces.hybrid_slm.ffn import SwiGLU
from gnomon.search_spaces.hybrid_slm.model import Branch
from gnomon.search_spaces.hybrid_slm.sizes import MixerSizes
from gnomon.search_spaces.hybrid_slm.sparse import ConstantFanInLinear, drop_fraction, rewire, watch
from gnomon.search_spaces.hybrid_slm.specs import FFN, Operator

SIZES = MixerSizes(width=12, heads=2, kv_heads=1, head_size=6)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return ConstantFanInLinear(20, 7, 4)


def _distinct(index):
    return all(len(set(row.tolist())) == len(row) for row in index)


def test_it_is_the_dense_product_of_its_weights(layer):
    x = torch.randn(5, 20)
    dense = np.zeros((7, 20))
    for output in range(7):
        for place in range(4):
            dense[output, layer.index[output, place]] += layer.weight[output, place].item()
    expected = x.double().numpy() @ dense.T
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-6)  # By gather.
    np.testing.assert_allclose(layer(x[None]).detach()[0].numpy(), expected, atol=1e-6)
    layer.gathers = False
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-6)


def test_it_begins_with_distinct_inputs_of_the_seed(layer):
    assert _distinct(layer.index)
    torch.manual_seed(0)
    again = ConstantFanInLinear(20, 7, 4)
    assert torch.equal(again.index, layer.index)
    assert torch.equal(again.weight, layer.weight)
    assert set(layer.state_dict()) == {"index", "weight"}


def test_both_ways_have_the_same_gradient(layer):
    x, gradients = torch.randn(5, 20), []
    for given in (x, x[None]):
        layer.zero_grad()
        layer(given).square().sum().backward()
        gradients.append(layer.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_rewiring_drops_the_least_and_grows_the_steepest(layer):
    with torch.no_grad():
        layer.weight.copy_(1.0 + torch.arange(28.0).view(7, 4))
        layer.weight[0, 1], layer.weight[3, 2] = 0.01, -0.02
    before, index = layer.weight.clone(), layer.index.clone()
    gradient = torch.rand(7, 20)
    free = {row: [j for j in range(20) if j not in index[row].tolist()] for row in (0, 3)}
    gradient[0, free[0][5]], gradient[3, free[3][2]] = -9.0, 8.0
    new = layer.rewire(gradient, 2 / 28)
    assert new.nonzero().tolist() == [[0, 1], [3, 2]]
    assert layer.index[0, 1] == free[0][5]
    assert layer.index[3, 2] == free[3][2]
    assert layer.weight[new].tolist() == [0.0, 0.0]
    assert torch.equal(layer.weight[~new], before[~new])
    assert torch.equal(layer.index[~new], index[~new])


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_the_fan_in_stays(layer, fraction):
    new = layer.rewire(torch.randn(7, 20), fraction)
    assert new.sum() == round(fraction * 28)
    assert layer.index.shape == (7, 4)
    assert _distinct(layer.index)


def test_watched_gradients_are_of_all_connections(layer):
    x = torch.randn(2, 5, 20)
    watch(layer)
    for part in x:
        layer(part[None]).square().sum().backward()
    dense = layer.dense_weight().detach().requires_grad_()
    (x @ dense.T).square().sum().backward()
    torch.testing.assert_close(layer.dense_gradient, dense.grad)


def test_rewiring_finds_the_inputs_that_matter():
    torch.manual_seed(0)
    layer = ConstantFanInLinear(30, 2, 3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    x, truth = torch.randn(1, 400, 30), torch.zeros(2, 30)
    truth[0, [3, 11, 27]], truth[1, [0, 11, 19]] = 1.0, -2.0
    watch(layer)
    for step in range(300):
        optimizer.zero_grad()
        (layer(x) - x @ truth.T).square().mean().backward()
        if step % 30 == 29:
            changed = rewire(layer, drop_fraction(step, 240), optimizer)
            assert changed == round(drop_fraction(step, 240) * 6)
        layer.dense_gradient = None
        optimizer.step()
    found = [sorted(row.tolist()) for row in layer.index]
    assert found == [[3, 11, 27], [0, 11, 19]]
    torch.testing.assert_close(layer.dense_weight(), truth, atol=0.05, rtol=0)


def test_moments_of_new_connections_are_forgotten(layer):
    optimizer = torch.optim.AdamW(layer.parameters())
    watch(layer)
    layer(torch.randn(1, 5, 20)).square().sum().backward()
    optimizer.step()
    index = layer.index.clone()
    rewire(layer, 0.5, optimizer)
    new = layer.weight == 0
    assert new.sum() == 14
    moments = optimizer.state[layer.weight]
    assert (moments["exp_avg"][new] == 0).all()
    assert (moments["exp_avg"][~new] != 0).all()
    assert not torch.equal(layer.index, index)


def test_mistakes_are_said(layer):
    with pytest.raises(SpaceError, match="fan_in"):
        ConstantFanInLinear(4, 3, 5)
    with pytest.raises(SpaceError, match="fraction"):
        layer.rewire(torch.zeros(7, 20), 1.5)
    with pytest.raises(SpaceError, match="watch"):
        rewire(layer, 0.3)


def test_fractions_fall_to_none():
    fractions = [drop_fraction(step, 100) for step in (0, 50, 100, 200)]
    np.testing.assert_allclose(fractions, [0.3, 0.15, 0.0, 0.0], atol=1e-12)


def test_a_branch_of_a_sparse_feed_forward():
    branch = Branch(Operator(FFN, SIZES, ffn_width=30, fan_in=5))
    assert isinstance(branch.body, SwiGLU)
    assert branch.body.work(12, 30, fan_in=5).parameters == sum(p.numel() for p in branch.body.parameters())
    assert branch.body.roles() == {}
    x = torch.randn(2, 3, 12)
    torch.testing.assert_close(branch(x)[:, 1], branch(x[:, 1]), atol=1e-5, rtol=0)


def test_onnx_by_gather(tmp_path):
    import onnx
    import onnxruntime

    torch.manual_seed(0)
    module = SwiGLU(12, 30, 5).eval()
    x = torch.randn(3, 12)
    dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},)
    torch.onnx.export(module, (x[:2],), str(tmp_path / "m.onnx"), dynamic_shapes=dynamic, dynamo=True, verbose=False)
    assert "Gather" in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    for batch in (1, 3):
        (found,) = session.run(None, {session.get_inputs()[0].name: x[:batch].numpy()})
        np.testing.assert_allclose(found, module(x[:batch]).detach().numpy(), atol=1e-5)
