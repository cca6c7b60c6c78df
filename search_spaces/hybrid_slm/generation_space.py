"""Spaces whose networks are given as specs of language models: how these are built, run and exported."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import SpaceError
from ..base import SearchSpace
from ..deployable import Deployable
from ..workload import Workload
from . import interface
from .options import check_fits
from .specs import LanguageModelSpec

if TYPE_CHECKING:
    from torch import nn

    from .model import LanguageModel


class GenerationSpace(SearchSpace):
    """Decoder-only language models, measured as two graphs: ``prefill`` and ``step``.

    Latency is that of the workload's phase, see :func:`~gnomon.search_spaces.hybrid_slm.interface.graphs`.
    """

    max_length: int
    """Longest sequence, meta tokens not counted."""

    @abstractmethod
    def spec_of(self, config: Mapping[str, Any]) -> LanguageModelSpec:
        """The network of a config.

        Raises:
            SpaceError: If it is none of this space.
        """

    def build(self, config: Mapping[str, Any]) -> LanguageModel:
        """A network from tokens ``(B, T)`` to logits ``(B, T, V)`` of the token after each."""
        from .model import LanguageModel

        return LanguageModel(self.spec_of(config))

    def graph_modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """See :meth:`SearchSpace.graph_modules`.

        Raises:
            SpaceError: If the model is no language model.
        """
        from .graphs import graph_modules
        from .model import LanguageModel

        if not isinstance(model, LanguageModel):
            raise SpaceError("not a network of this space", field="model", value=type(model).__name__)
        return graph_modules(model)

    def deployable(self, config: Mapping[str, Any], workload: Workload | None = None) -> Deployable:
        """Both graphs, and the plan of the workload's phase.

        Raises:
            SpaceError: If the workload is longer than the space's sequences.
        """
        workload = workload or self.workload
        check_fits(workload, self.max_length)
        architecture = self.architecture(self.genotype(config))

        def make(graph: str) -> nn.Module:
            return self.graph_modules(self.build(config))[graph]

        made, plan = interface.graphs(self.spec_of(config), workload, make)
        return Deployable(architecture.key, workload, made, plan, architecture)

    def interface(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`SearchSpace.interface`."""
        return interface.interface(self.spec_of(config)).to_dict()

    def model_files(self, config: Mapping[str, Any]) -> dict[str, str]:
        """See :meth:`SearchSpace.model_files`: what :func:`load_language_model` rebuilds the model from."""
        from .saved import SPEC

        return {SPEC: self.spec_of(config).to_json()}
