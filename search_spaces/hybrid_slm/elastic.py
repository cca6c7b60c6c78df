"""All language models of a space in one set of weights: every mixer that a place may have, side by side.

A branch is shared by all networks in which the same operator stands at the same place: after as many mixers, and as
many feed-forwards since the last one. One width only: states of mixers of different widths have nothing in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Protocol, cast

import torch
from torch import nn

from ...errors import SpaceError
from ..elastic import ElasticModel
from .model import Branch, LanguageModel
from .specs import FFN, LanguageModelSpec, Operator


class Networks(Protocol):
    """What shared weights are made for."""

    def longest(self) -> list[list[Operator]]:
        """Operators of networks that together have every branch there is."""
        ...


@dataclass(frozen=True)
class Menu:
    """What a place may hold.

    Args:
        mixers: Every mixer, with every size that it may have.
        ffns: Every feed-forward.
        most_mixers: Of a network.
        most_ffns: After one mixer.
    """

    mixers: tuple[Operator, ...]
    ffns: tuple[Operator, ...]
    most_mixers: int
    most_ffns: int

    def longest(self) -> list[list[Operator]]:
        """Operators of networks (too long to be any of the space's) that together have every branch there is."""
        networks = []
        for index in range(max(len(self.mixers), len(self.ffns))):
            mixer = self.mixers[index % len(self.mixers)]
            after = [self.ffns[index % len(self.ffns)]] * self.most_ffns if self.ffns else []
            networks.append([mixer, *after] * self.most_mixers)
        return networks


def places(operators: Iterable[Operator]) -> list[str]:
    """Name of each operator of a network: where it stands and what it is, the same in all networks that share it."""
    names, mixers, ffns = [], 0, 0
    for operator in operators:
        if operator.kind == FFN:
            ffns += 1
        else:
            mixers, ffns = mixers + 1, 0
        what = operator.kind.rpartition(".")[2]
        digest = sha256(repr(_identity(operator)).encode()).hexdigest()[:6]
        names.append(f"m{mixers}f{ffns}_{what}_{digest}")
    return names


def _identity(operator: Operator) -> tuple[object, ...]:
    """What makes its weights another's: heads and windows are nothing to a feed-forward."""
    if operator.kind == FFN:
        return operator.sizes.width, operator.ffn_width, operator.fan_in
    return operator.kind, operator.sizes


class SuperLanguageModel(LanguageModel, ElasticModel):
    """Any network of a space; the one that is selected also runs token by token.

    Args:
        first: The network that is selected first.
        menu: What each place may hold.
        spec_of: The network of a config; raises what is wrong with one that is none of the space.
    """

    def __init__(
        self, first: LanguageModelSpec, menu: Networks, spec_of: Callable[[Mapping[str, Any]], LanguageModelSpec]
    ) -> None:
        super().__init__(replace(first, operators=()))
        operators = {
            name: operator
            for network in menu.longest()
            for name, operator in zip(places(network), network, strict=True)
        }
        self.shared = nn.ModuleDict({name: Branch(operators[name], first.skips) for name in sorted(operators)})
        self._spec_of = spec_of
        self._select(first)

    def select(self, config: Mapping[str, Any]) -> None:
        """See :meth:`ElasticModel.select`."""
        self._select(self._spec_of(config))

    def extract(self, config: Mapping[str, Any]) -> LanguageModel:
        """See :meth:`ElasticModel.extract`."""
        spec = self._spec_of(config)
        weight = self.embedding.weight
        with torch.random.fork_rng(devices=[]):
            plain = LanguageModel(spec).to(weight.device, weight.dtype)
        plain.load_state_dict(self.state_of(spec))
        return plain.train(self.training)

    def state_of(self, spec: LanguageModelSpec) -> dict[str, torch.Tensor]:
        """The state of a plain network with its part of the weights; the tensors are this model's own."""
        state = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("shared.")}
        for number, name in enumerate(self._known(spec)):
            branch = self.shared[name].state_dict()
            state |= {f"branches.{number}.{part}": tensor for part, tensor in branch.items()}
        return state

    def _select(self, spec: LanguageModelSpec) -> None:
        self._selected = self._known(spec)
        self.spec = spec

    def _known(self, spec: LanguageModelSpec) -> list[str]:
        names = places(spec.operators)
        missing = [name for name in names if name not in self.shared]
        if missing or spec.width != self.spec.width or spec.meta_tokens != self.spec.meta_tokens:
            raise SpaceError("no shared weights for this network", field="config", value=missing or spec.width)
        return names

    def each_branch(self) -> list[Branch]:
        """Of the selected network, in order."""
        return [cast(Branch, self.shared[name]) for name in self._selected]

    def named_branches(self) -> list[tuple[str, Branch]]:
        """See :meth:`LanguageModel.named_branches`."""
        return [(f"shared.{name}", cast(Branch, branch)) for name, branch in self.shared.items()]
