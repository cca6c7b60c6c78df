"""An optimiser that is restored from plain tensors goes on to the bit, whatever the layout of its parameters."""

import torch
from torch import nn

from gnomon.tasks.optimizer_state import optimizer_state, restore_optimizer


def test_channels_last_and_fused():
    def make():
        torch.manual_seed(0)
        model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    def step(model, optimizer, seed):
        optimizer.zero_grad(set_to_none=True)
        model(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        optimizer.step()

    model, optimizer = make()
    step(model, optimizer, 1)
    tensors, scalars = optimizer_state(optimizer)
    plain = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other, again = make()
    other.load_state_dict(weights)
    restore_optimizer(again, plain, scalars)
    step(model, optimizer, 2)
    step(other, again, 2)
    torch.testing.assert_close(other.weight, model.weight, rtol=0, atol=0)
