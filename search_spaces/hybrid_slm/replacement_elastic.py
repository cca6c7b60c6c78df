"""A trained language model with every replacement of its mixers beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from ..elastic.replaceable import Place, ReplaceableModel
from .conversion import take_projections
from .elastic import SuperLanguageModel, places
from .mixers import Mixer
from .model import Branch, LanguageModel
from .specs import LanguageModelSpec, Operator


class ReplaceableLanguageModel(SuperLanguageModel, ReplaceableModel):
    """A parent and its replacements, each in a branch of its own with the parent's norm.

    Replacements begin with the projections of the mixer that they replace, as far as they have such; what else they
    have is initialised under torch's current seed.

    Args:
        parent: Whose weights are copied.
        uniform: By choice, the network that makes it everywhere; the parent's own first.
        spec_of: The network of a config.
        replaced: By decision, the number of the operator that it replaces.
        trained: Which parameters training may change, see :func:`leave_trainable`.
    """

    def __init__(
        self,
        parent: LanguageModel,
        uniform: Mapping[str, LanguageModelSpec],
        spec_of: Callable[[Mapping[str, Any]], LanguageModelSpec],
        replaced: Mapping[str, int],
        trained: str,
    ) -> None:
        specs = list(uniform.values())
        super().__init__(specs[0], _AllOf(specs), spec_of)
        self._names = {choice: places(spec.operators) for choice, spec in uniform.items()}
        self._replaced, self._trained = dict(replaced), trained
        self._copy(parent)

    def places(self) -> dict[str, Place]:
        """See :meth:`ReplaceableModel.places`. Replacements are called by their choices."""
        found = {}
        for decision, number in self._replaced.items():
            bodies = {choice: self._branch(names[number]).body for choice, names in self._names.items()}
            original, *others = bodies
            found[decision] = Place(bodies[original], {choice: bodies[choice] for choice in others})
        return found

    def start(self, config: Mapping[str, Any]) -> LanguageModel:
        """See :meth:`ReplaceableModel.start`."""
        return leave_trainable(self.extract(config), self._trained)

    def _branch(self, name: str) -> Branch:
        return cast(Branch, self.shared[name])

    def _copy(self, parent: LanguageModel) -> None:
        """Everything that the parent has, and of it what replacements can use."""
        own = parent.state_dict()
        self.load_state_dict({name: own.get(name, tensor) for name, tensor in self.state_dict().items()})
        kept, *others = self._names.values()
        for number, branch in enumerate(parent.each_branch()):
            self._branch(kept[number]).load_state_dict(branch.state_dict())
            for names in others:
                if names[number] != kept[number]:
                    _begin(self._branch(names[number]), branch)


class _AllOf:
    """A menu of given networks."""

    def __init__(self, specs: Sequence[LanguageModelSpec]) -> None:
        self._specs = specs

    def longest(self) -> list[list[Operator]]:
        return [list(spec.operators) for spec in self._specs]


def _begin(branch: Branch, source: Branch) -> None:
    """A replacement's branch: norm and router of the source, and its projections."""
    branch.norm.load_state_dict(source.norm.state_dict())
    if branch.router is not None and source.router is not None:
        branch.router.load_state_dict(source.router.state_dict())
    take_projections(cast(Mixer, branch.body), cast(Mixer, source.body))


def leave_trainable(model: LanguageModel, trained: str) -> LanguageModel:
    """Sets which parameters ask for gradients, in place: ``all``, or only those of ``mixers``: not feed-forwards,
    norms, routers, meta tokens, embedding and output layer (Jet-Nemotron, 2508.15884, freezes feed-forwards)."""
    if trained == "mixers":
        bodies = (branch.body for branch in model.each_branch() if branch.mixer is not None)
        kept = {id(parameter) for body in bodies for parameter in body.parameters()}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in kept)
    return model
