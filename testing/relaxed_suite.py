"""What every relaxed model promises, as tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ..search_spaces import SearchSpace


class RelaxedSuite:
    """Subclass it, give it the fixture ``space`` (small: models are built), and pytest does the rest."""

    models: int = 3
    """Random architectures whose corners are compared."""

    @pytest.fixture
    def space(self) -> SearchSpace:
        """A space with ``relaxed``."""
        raise NotImplementedError("a RelaxedSuite needs a fixture `space`")

    def test_corners_are_the_networks(self, space: SearchSpace) -> None:
        """With one gate of 1 a group, the mixture computes what the extracted network computes."""
        torch.manual_seed(0)
        model = space.relaxed()
        x = torch.randn(2, *space.workload.input_shape)
        _warm(model, x)
        rows = space.sample(self.models, np.random.default_rng(0))
        for row in rows:
            config = space.config(row)
            model.mix(model.corner(config))
            plain = model.extract(config)
            assert not plain.training
            built = space.build(config).state_dict()
            assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in built.items()}
            with torch.no_grad():
                torch.testing.assert_close(model(x), plain(x), rtol=1e-4, atol=1e-5)

    def test_mixtures_lie_between(self, space: SearchSpace) -> None:
        """Gates near a corner give nearly the corner's logits: nothing jumps."""
        torch.manual_seed(0)
        model = space.relaxed()
        x = torch.randn(2, *space.workload.input_shape)
        _warm(model, x)
        config = space.config(space.sample(1, np.random.default_rng(1))[0])
        corner = model.corner(config)
        outputs = []
        for share in (0.0, 1e-4, 0.5):
            model.mix([(1 - share) * gate + share / len(gate) for gate in corner])
            with torch.no_grad():
                outputs.append(model(x))
        assert (outputs[1] - outputs[0]).norm() < 0.05 * (outputs[2] - outputs[0]).norm() + 1e-6

    def test_every_gate_has_a_gradient(self, space: SearchSpace) -> None:
        torch.manual_seed(0)
        model = space.relaxed().train()
        x = torch.randn(4, *space.workload.input_shape)
        gates = [torch.full((size,), 1.0 / size, requires_grad=True) for size in model.sizes]
        model.mix(gates)
        (model(x) ** 2).sum().backward()
        for group, gate in zip(model.groups, gates, strict=True):
            names = [space.decisions[column].name for column in group]
            assert gate.grad is not None, f"{names} has no gradient"
            assert torch.isfinite(gate.grad).all()
            assert len(gate) == 1 or gate.grad.abs().max() > 0, f"{names} changes nothing"

    def test_what_has_no_gate_learns_nothing(self, space: SearchSpace) -> None:
        torch.manual_seed(0)
        model = space.relaxed().train()
        smallest = min(space.sample(20, np.random.default_rng(0)), key=lambda row: space.costs(row[None]).parameters[0])
        model.mix(model.corner(space.config(smallest)))
        model(torch.randn(4, *space.workload.input_shape)).sum().backward()
        assert any(p.grad is None for p in model.parameters())

    def test_relaxed_encodings_agree_with_encodings_at_the_corners(self, space: SearchSpace) -> None:
        for row in space.sample(8, np.random.default_rng(0)):
            corner = [
                torch.nn.functional.one_hot(torch.tensor(int(gene)), int(k)).float()
                for gene, k in zip(row, space.algebra.cardinalities, strict=True)
            ]
            np.testing.assert_allclose(
                space.encode_soft(corner).numpy(), space.encode(row[None])[0], rtol=1e-4, atol=1e-4
            )

    def test_relaxed_encodings_are_averages(self, space: SearchSpace) -> None:
        """Inside, they are the mean of the encodings of independent draws."""
        rng = np.random.default_rng(0)
        probabilities = [rng.dirichlet(np.ones(int(k))) for k in space.algebra.cardinalities]
        draws = np.stack([rng.choice(len(p), size=20_000, p=p) for p in probabilities], axis=1).astype(np.int8)
        encoded = space.encode(space.canonical(draws)).astype(np.float64)
        soft = space.encode_soft([torch.tensor(p, dtype=torch.float32) for p in probabilities]).numpy()
        error = np.abs(encoded.mean(axis=0) - soft)
        assert (error <= 6 * encoded.std(axis=0) / np.sqrt(len(draws)) + 1e-4).all()

    def test_relaxed_encodings_have_gradients(self, space: SearchSpace) -> None:
        probabilities = [torch.full((int(k),), 1.0 / int(k), requires_grad=True) for k in space.algebra.cardinalities]
        space.encode_soft(probabilities).sum().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in probabilities)


def _warm(model: torch.nn.Module, x: torch.Tensor) -> None:
    """Statistics of batch norm that are not the initial ones."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(x)
    model.eval()
