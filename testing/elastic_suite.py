"""What every weight-shared model of a space promises, as tests."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ..errors import SpaceError
from ..search_spaces import GENE_DTYPE, SearchSpace

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..search_spaces.elastic import ElasticModel

Config = dict[str, Any]


class ElasticSuite:
    """Subclass it, give it the fixture ``space``, whose ``elastic()`` is tested, and pytest does the rest.

    Keep images and networks small. Models that do not take images override :meth:`inputs`.
    """

    networks: int = 5
    """Random networks that are selected and extracted, besides that of all first and that of all last choices."""
    tolerance: float = 1e-6
    """Largest difference of an extracted network's outputs."""
    transforms_weights: bool = False
    """Whether some weights of a network are computed from shared ones rather than being a part of them."""
    starts_trained: bool = False
    """Whether a fresh model has given weights, whatever the seed."""

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The space under test."""
        raise NotImplementedError("an ElasticSuite needs a fixture `space`")

    def inputs(self, space: SearchSpace, batch: int) -> tuple[torch.Tensor, ...]:
        """Arguments of the models' ``forward``; by default random images."""
        import torch

        generator = torch.Generator().manual_seed(0)
        return (torch.randn(batch, *space.workload.input_shape, generator=generator),)

    @pytest.fixture
    def model(self, space: SearchSpace) -> ElasticModel:
        """Seeded, every statistic moved, in evaluation mode."""
        import torch

        torch.manual_seed(0)
        model = space.elastic().train()
        for config in self._configs(space):
            model.select(config)
            with torch.no_grad():
                model(*self.inputs(space, 4))
        return model.eval()

    # ---- One network -------------------------------------------------------------------------

    def test_freshly_made_it_runs(self, space: SearchSpace) -> None:
        import torch

        assert torch.isfinite(space.elastic().eval()(*self.inputs(space, 2))).all()

    def test_an_extracted_network_answers_alike(self, space: SearchSpace, model: ElasticModel) -> None:
        import torch

        x = self.inputs(space, 3)
        answers = []
        for config in self._configs(space):
            model.select(config)
            with torch.no_grad():
                expected = model(*x)
                found = model.extract(config)(*x)
            assert found.abs().max() > 0
            difference = float((found - expected).abs().max())
            assert difference <= self.tolerance, f"{config} differs by {difference}"
            answers.append(found)
        assert not torch.equal(answers[0], answers[-1]), "every network gives the same answer"

    def test_an_extracted_network_is_what_the_space_builds(self, space: SearchSpace, model: ElasticModel) -> None:
        for config in self._configs(space):
            found, expected = model.extract(config), space.build(config)
            assert type(found) is type(expected)
            assert [(name, type(module)) for name, module in found.named_modules()] == [
                (name, type(module)) for name, module in expected.named_modules()
            ]
            layouts = [
                {name: (t.shape, t.dtype, t.stride()) for name, t in module.state_dict().items()}
                for module in (found, expected)
            ]
            assert layouts[0] == layouts[1]
            assert all(p.requires_grad and p.is_leaf for p in found.parameters())

    def test_an_extracted_network_is_a_copy(self, space: SearchSpace, model: ElasticModel) -> None:
        import torch

        before = _state(model)
        for parameter in model.extract(self._configs(space)[-1]).parameters():
            torch.nn.init.constant_(parameter, 7.0)
        assert _equal(before, _state(model))

    def test_extracting_is_not_noticed(self, space: SearchSpace, model: ElasticModel) -> None:
        """Neither the selection, nor the mode, nor torch's random numbers change."""
        import torch

        first, *_, last = self._configs(space)
        model.select(first)
        x = self.inputs(space, 2)
        random = torch.get_rng_state()
        with torch.no_grad():
            expected = model(*x)
            extracted = model.train().extract(last)
            assert extracted.training
            assert not model.eval().extract(last).training
            assert torch.equal(model(*x), expected)
        assert torch.equal(torch.get_rng_state(), random)

    def test_equal_configs_are_the_same_network(self, space: SearchSpace, model: ElasticModel) -> None:
        import torch

        first, *_, last = self._configs(space)
        x = self.inputs(space, 2)
        with torch.no_grad():
            model.select(first)
            expected = model(*x)
            model.select(last)
            model(*x)
            model.select(dict(reversed(first.items())))
            assert torch.equal(model(*x), expected)

    # ---- Training ----------------------------------------------------------------------------

    def test_gradients_flow_only_into_the_selected_part(self, space: SearchSpace, model: ElasticModel) -> None:
        import torch

        x = self.inputs(space, 3)
        for config in self._configs(space):
            model.select(config)
            model.zero_grad(set_to_none=True)
            loss = model(*x).square().mean()
            loss.backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            assert any((gradient != 0).any() for gradient in gradients)
            if not self.transforms_weights:
                extracted = model.extract(config)
                extracted(*x).square().mean().backward()
                expected = [p.grad for p in extracted.parameters() if p.grad is not None]
                # Every gradient of the network is somewhere in the shared weights, and there is no other.
                assert _nonzero(gradients) == pytest.approx(_nonzero(expected), rel=1e-3, abs=8)
                assert _norm(gradients) == pytest.approx(_norm(expected), rel=1e-3)
            changed = copy.deepcopy(model)
            with torch.no_grad():
                for parameter, original in zip(changed.parameters(), model.parameters(), strict=True):
                    if original.grad is None:
                        parameter.fill_(float("nan"))
                torch.testing.assert_close(changed(*x), model(*x), rtol=0, atol=0)

    def test_larger_networks_use_more_weights(self, space: SearchSpace, model: ElasticModel) -> None:
        used = []
        configs = self._configs(space)
        for config in configs:
            model.select(config)
            model.zero_grad(set_to_none=True)
            model.train()(*self.inputs(space, 4)).square().mean().backward()
            used.append(_nonzero(p.grad for p in model.parameters() if p.grad is not None))
        assert len(set(used)) > 1
        assert max(used) <= sum(p.numel() for p in model.parameters())

    def test_a_step_changes_the_selected_network(self, space: SearchSpace, model: ElasticModel) -> None:
        import torch

        config = self._configs(space)[-1]
        model.select(config)
        optimiser = torch.optim.SGD(model.parameters(), 1e-3)
        before = _state(model.extract(config))
        model.train()(*self.inputs(space, 4)).square().mean().backward()
        optimiser.step()
        assert not _equal(before, _state(model.extract(config)))

    # ---- What is refused, what is kept --------------------------------------------------------

    def test_foreign_configs_are_refused(self, space: SearchSpace, model: ElasticModel) -> None:
        import torch

        config = self._configs(space)[0]
        model.select(config)
        x = self.inputs(space, 2)
        with torch.no_grad():
            expected = model(*x)
            name = next(iter(config))
            for foreign in ({}, {**config, "no such decision": 1}, {**config, name: "no such choice"}):
                with pytest.raises(SpaceError):
                    model.select(foreign)
                with pytest.raises(SpaceError):
                    model.extract(foreign)
                assert torch.equal(model(*x), expected), "a refused config changed the selection"

    def test_state_dict_round_trip(self, space: SearchSpace, model: ElasticModel) -> None:
        """Through a safetensors file, into a model of another seed."""
        import torch
        from safetensors.torch import load, save

        data = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
        torch.manual_seed(1)
        other = space.elastic().eval()
        x = self.inputs(space, 2)
        for config in self._configs(space):
            model.select(config)
            with torch.no_grad():
                expected = model(*x)
                other.load_state_dict(load(data))
                other.select(config)
                torch.testing.assert_close(other(*x), expected, rtol=0, atol=self.tolerance)

    def test_initialisation_follows_the_seed(self, space: SearchSpace) -> None:
        import torch

        states = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            states.append(_state(space.elastic()))
        assert _equal(states[0], states[1])
        assert _equal(states[0], states[2]) == self.starts_trained

    def _configs(self, space: SearchSpace) -> list[Config]:
        """The network of all first choices, random ones, the network of all last choices."""
        ends = np.stack([np.zeros(len(space.decisions)), space.algebra.cardinalities - 1]).astype(GENE_DTYPE)
        ends = space.canonical(ends)
        rows = [ends[0], *space.sample(self.networks, np.random.default_rng(0)), ends[1]]
        return [dict(space.config(row)) for row in rows]


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    import torch

    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _nonzero(gradients: Iterator[torch.Tensor] | list[torch.Tensor]) -> int:
    return sum(int((gradient != 0).sum()) for gradient in gradients)


def _norm(gradients: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
