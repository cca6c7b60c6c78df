"""Costs counted from a traced module, on graphs small enough to count by hand."""

import pytest
import torch
from torch import nn

from gnomon.errors import SpaceError
from gnomon.search_spaces.graph_costs import module_costs


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.relu = nn.Conv2d(2, 4, 1, bias=False), nn.Conv2d(4, 2, 3, padding=1), nn.ReLU()

    def forward(self, x):
        return self.relu(self.b(self.a(x)) + x)


def test_a_chain_by_hand():
    """Input 1x8x8 = 64; conv to 2x4x4 = 32; batch norm and ReLU in place; mean 2; linear 3."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 3),
    )
    costs = module_costs(model, (1, 8, 8))
    assert costs == {
        "parameters": 18 + 4 + 9,
        "macs": 32 * 9 + 6,
        "cio": 64 + 32,
        "peak_activation_bytes": 4 * (64 + 32),
    }


def test_a_shortcut_keeps_its_input_alive():
    """While b runs: the input (50), a's output (100) and b's output (50)."""
    assert module_costs(Residual(), (2, 5, 5))["peak_activation_bytes"] == 4 * (50 + 100 + 50)


def test_grouped_and_transposed_convolutions():
    depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    assert module_costs(nn.Sequential(depthwise), (6, 4, 4))["macs"] == 16 * 6 * 9
    transposed = nn.ConvTranspose2d(4, 2, 2, stride=2)
    assert module_costs(nn.Sequential(transposed), (4, 3, 3))["macs"] == 9 * 4 * 2 * 4


def test_the_module_is_not_changed():
    model = Residual().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    module_costs(model, (2, 5, 5))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_traced_is_refused():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(SpaceError, match="trace"):
        module_costs(Branching(), (1, 2, 2))
    with pytest.raises(SpaceError, match="trace"):
        module_costs(nn.Linear(3, 2), (4,))
