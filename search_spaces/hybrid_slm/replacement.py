"""A trained language model with attention in fewer places: what stands where.

After Jet-Nemotron (2508.15884), which starts from a trained model and freezes its feed-forwards, and Puzzle
(2411.19146), which teaches and scores replacements one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import SchemaError, SpaceError
from ..additive import AdditiveEncoding
from ..algebra import Genotypes
from ..costs import Costs
from ..decision import Choice, Decision
from .alternatives import KEEP, check_sizes, checked_alternatives, replaced_operators
from .generation_space import GenerationSpace
from .options import checked_workload
from .replacement_figures import ReplacementFigures
from .specs import LanguageModelSpec, Operator

if TYPE_CHECKING:
    from .model import LanguageModel
    from .replacement_elastic import ReplaceableLanguageModel

TRAINED = ("mixers", "all")


class MixerReplacement(GenerationSpace):
    """Networks that differ from a trained one, the parent, in what stands where it has attention.

    Decisions ``mixer1``, ``mixer2``, … for each mixer of the parent that is of the kind ``replaced``: ``keep`` it, or
    the name of a replacement. Everything else is the parent's: feed-forwards, norms, embedding.

    :meth:`initial` and :meth:`elastic` start from the parent's weights. Replacements begin with the projections of
    what they replace and are to learn from it: ``quality=blockwise`` (Puzzle, 2411.19146).
    By default, training changes mixers only, whether kept or replaced.

    Args:
        model: Folder of the parent: a language model that a search of ours trained, or that was exported.
        mixers: Replacements: kinds, with all sizes as what they replace, or mappings such as
            ``{kind: sliding_window, window: 64}`` or ``{kind: attention, kv_heads: 1}``.
        replaced: Kind of the mixers that may be replaced.
        trained: ``mixers`` or ``all``: which parameters a training of these networks changes.
        phase, context, prompt_length, generated_length, batch: What latency is measured at, as of
            :class:`~gnomon.search_spaces.hybrid_slm.space.HybridSLM`; None is what the parent's length allows.
    """

    name: ClassVar[str] = "mixer_replacement"
    starts_trained: ClassVar[bool] = True

    def __init__(
        self,
        model: str | Path,
        mixers: Sequence[str | Mapping[str, Any]] = ("sliding_window", "deltanet"),
        replaced: str = "attention",
        trained: str = "mixers",
        phase: str = "step",
        context: int | None = None,
        prompt_length: int | None = None,
        generated_length: int | None = None,
        batch: int = 1,
    ) -> None:
        if trained not in TRAINED:
            raise SpaceError("unknown", field="trained", value=trained, allowed=TRAINED)
        self.folder = _checked_folder(model)
        self.alternatives = checked_alternatives(mixers)
        self.replaced, self.trained = replaced, trained
        self.parent: LanguageModelSpec = self.given().spec
        self.places = replaced_operators(self.parent, replaced)
        check_sizes(self.alternatives, (self.parent.operators[number] for number in self.places.values()))
        choices = (KEEP, *(alternative.name for alternative in self.alternatives))
        self._run = {
            "phase": phase,
            "context": context,
            "prompt_length": prompt_length,
            "generated_length": generated_length,
            "batch": batch,
        }
        self.max_length = self.parent.max_length
        workload = checked_workload(self._run, self.max_length)
        super().__init__(tuple(Decision(name, choices) for name in self.places), workload)

    def arguments(self) -> dict[str, Any]:
        return {
            "model": str(self.folder),
            "mixers": [alternative.to_json() for alternative in self.alternatives],
            "replaced": self.replaced,
            "trained": self.trained,
            **self._run,
        }

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """``parent`` (the reference), and for every replacement ``all_<name>``."""
        kept: dict[str, dict[str, Choice]] = {"parent": dict.fromkeys(self.places, KEEP)}
        return kept | {f"all_{other.name}": dict.fromkeys(self.places, other.name) for other in self.alternatives}

    def given(self) -> LanguageModel:
        """The parent with its weights.

        Raises:
            SpaceError: If the folder holds no language model.
        """
        from .saved import load_language_model

        try:
            return load_language_model(self.folder)
        except SchemaError as error:
            raise SpaceError(f"no language model: {error}", field="model", value=str(self.folder)) from error

    def given_assets(self) -> Mapping[str, str]:
        """The parent's tokenizer, if its folder has one: other tokens would mean something else to it."""
        return {path.name: path.read_text(encoding="utf-8") for path in sorted(self.folder.glob("*tokenizer*.json"))}

    def given_limits(self) -> Mapping[str, int]:
        """The parent has no positions beyond its longest sequence."""
        return {"max_length": self.max_length}

    def spec_of(self, config: Mapping[str, Any]) -> LanguageModelSpec:
        """See :meth:`GenerationSpace.spec_of`."""
        chosen = self.config(self.genotype(config))
        operators = list(self.parent.operators)
        for name, number in self.places.items():
            operators[number] = self._option(operators[number], str(chosen[name]))
        return replace(self.parent, operators=tuple(operators))

    def initial(self, config: Mapping[str, Any]) -> LanguageModel:
        """The parent's weights; replacements begin with the projections of what they replace. What training shall
        leave as it is asks for no gradient."""
        return self.elastic().start(config)

    def elastic(self) -> ReplaceableLanguageModel:
        """The parent and all replacements in one model; its weights, and theirs as they begin."""
        from .replacement_elastic import ReplaceableLanguageModel

        choices = self.decisions[0].choices
        uniform = {str(choice): self.spec_of(dict.fromkeys(self.places, choice)) for choice in choices}
        return ReplaceableLanguageModel(self.given(), uniform, self.spec_of, self.places, self.trained)

    @cached_property
    def figures(self) -> ReplacementFigures:
        """Costs and features of everything that can be chosen."""
        options = {
            decision.name: [
                self._option(self.parent.operators[self.places[decision.name]], str(choice))
                for choice in decision.choices
            ]
            for decision in self.decisions
        }
        context = int(self.workload.context or 1)
        return ReplacementFigures(self.parent, self.decisions, options, context)

    def costs(self, genotypes: Genotypes) -> Costs:
        """See :meth:`ReplacementFigures.costs`."""
        return self.figures.costs(genotypes)

    def encode(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """The features of :class:`ReplacementFigures` ``(N, F)``."""
        return self.figures.encoding.encode(genotypes)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self.figures.names

    @property
    def feature_units(self) -> npt.NDArray[np.float64]:
        return self.figures.units

    def additive_encoding(self) -> AdditiveEncoding:
        return self.figures.encoding

    def _option(self, operator: Operator, choice: str) -> Operator:
        """What stands where ``operator`` did."""
        by_name = {alternative.name: alternative for alternative in self.alternatives}
        return operator if choice == KEEP else by_name[choice].of(operator)


def _checked_folder(model: str | Path) -> Path:
    if not isinstance(model, (str, Path)) or not str(model):
        raise SpaceError(
            "names no trained model",
            field="model",
            value=model,
            allowed="the folder of a language model, for example runs/STUDY/models/ID",
        )
    return Path(model).absolute()
