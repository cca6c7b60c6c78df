"""What spaces of language models share: everything but which operators there are."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import SpaceError
from ..additive import AdditiveEncoding
from ..algebra import GENE_DTYPE, Genotypes
from ..costs import Costs
from ..counting import count_canonical
from ..decision import Choice, Decision
from ..hat.sizes import checked_count
from .figures import Figures, Part
from .generation_space import GenerationSpace
from .options import (
    DECISIONS,
    DEFAULT_LENGTH,
    DEFAULT_VOCABULARY,
    checked_mixers,
    checked_options,
    checked_workload,
    model_spec,
)
from .specs import FFN, LanguageModelSpec, Operator
from .work import reads, work_table

if TYPE_CHECKING:
    from .elastic import Menu, SuperLanguageModel

FRAME = ("width", "tied", "meta_tokens", "exit_after", "skips")
"""Options that surround the operators, or shape them all."""
ARGUMENTS = {decision: argument for argument, decision in DECISIONS.items()}

MOST_ENUMERATED = 20_000
"""Networks up to which they are counted one by one."""


@dataclass(frozen=True)
class Layer:
    """One mixer of a network, the feed-forwards after it, and options of its own."""

    kind: str
    ffns: int
    own: Mapping[str, Choice]


class LanguageModelSpace(GenerationSpace):
    """Language models of chosen operators. Latency is that of one token at ``context`` tokens, unless ``phase`` says
    otherwise.

    Args:
        arguments: The subclass's.
        operators: Decisions about operators, in order.
    """

    def __init__(self, arguments: Mapping[str, Any], operators: Sequence[Decision]) -> None:
        vocabulary, max_length = arguments["vocabulary"], arguments["max_length"]
        self.vocabulary = checked_count("vocabulary", DEFAULT_VOCABULARY if vocabulary is None else vocabulary, 2)
        self.max_length = checked_count("max_length", DEFAULT_LENGTH if max_length is None else max_length, 2)
        self.mixers = checked_mixers(arguments["mixers"])
        self.options = checked_options(arguments)
        self.max_operators = checked_count("max_operators", arguments["max_operators"])
        self._arguments = {
            name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for name, value in arguments.items()
        }
        shared = [
            Decision(name, choices, ordered=name not in ("tied", "skips"))
            for name, choices in self.options.choices().items()
            if len(choices) > 1 and name not in self.chosen_apart()
        ]
        super().__init__((*shared, *operators), checked_workload(arguments, self.max_length))
        self._check_smallest()

    # ---- What a subclass says ----------------------------------------------------------------------

    @classmethod
    def chosen_apart(cls) -> tuple[str, ...]:
        """Options that are not one decision for all operators."""
        return ()

    @abstractmethod
    def layers_of(self, config: Mapping[str, Any]) -> list[Layer]:
        """The mixers of a config, in order."""

    @abstractmethod
    def parts(self) -> list[Part]:
        """What figures sum over."""

    @abstractmethod
    def shortened(self, genotypes: Genotypes) -> Genotypes:
        """At most ``max_operators`` operators, in place."""

    @property
    def most_layers(self) -> int:
        """Mixers of a network at most, ``max_operators`` aside."""
        return self.max_operators

    # ---- The contract --------------------------------------------------------------------------------

    def arguments(self) -> dict[str, Any]:
        return dict(self._arguments)

    @property
    def log10_size(self) -> float:
        """log10 of the number of architectures; from :data:`MOST_ENUMERATED` on an upper bound, which counts
        networks that :meth:`repair` changes."""
        if (count_canonical(self.algebra) or math.inf) <= MOST_ENUMERATED:
            return math.log10(len(self.enumerate()))
        return super().log10_size

    def enumerate(self, limit: int = 1_000_000) -> Genotypes:
        """See :meth:`SearchSpace.enumerate`; ``limit`` is of networks after :meth:`repair`."""
        rows = super().enumerate(max(limit, MOST_ENUMERATED))
        if len(rows) > limit:
            raise SpaceError("the space is too large to list", field="limit", value=limit, allowed=f"{len(rows):,}")
        return rows

    def repair(self, genotypes: Genotypes) -> Genotypes:
        """At most ``max_operators`` operators; KV heads that divide the heads; an early exit before the end."""
        result = self.shortened(genotypes.copy())
        self._fit_kv_heads(result)
        self._lower(result, "exit_after", self.figures.operators(result) - 1)
        return result

    def spec_of(self, config: Mapping[str, Any]) -> LanguageModelSpec:
        """The network of a config.

        Raises:
            SpaceError: If it is none of this space.
        """
        config = self.config(self.genotype(config))
        constants = {name: choices[0] for name, choices in self.options.choices().items()}
        layers = [(layer.kind, layer.ffns, layer.own) for layer in self.layers_of(config)]
        return model_spec({**constants, **config}, layers, self.vocabulary, self.max_length)

    def elastic(self) -> SuperLanguageModel:
        """See :meth:`SearchSpace.elastic`: every mixer at every place.

        Raises:
            SpaceError: If networks differ in width, or in what surrounds the operators.
        """
        from .elastic import SuperLanguageModel

        for name, choices in self.options.choices().items():
            if name in FRAME and len(choices) > 1:
                raise SpaceError("shared weights need one choice", field=f"space.{ARGUMENTS[name]}", value=choices)
        last = np.array([self.algebra.cardinalities], dtype=GENE_DTYPE) - 1
        return SuperLanguageModel(self.spec_of(self.config(self.canonical(last)[0])), self._menu(), self.spec_of)

    def _menu(self) -> Menu:
        from .elastic import Menu

        inner = {name: choices for name, choices in self.options.choices().items() if name not in FRAME}
        constants = {name: choices[0] for name, choices in self.options.choices().items()}
        most_ffns = max(int(count) for count in self._arguments["ffns"])
        operators: dict[Operator, None] = {}
        for values in itertools.product(*inner.values()):
            choices: dict[str, Any] = {**constants, **dict(zip(inner, values, strict=True))}
            if (choices["width"] // choices["head_size"]) % choices["kv_heads"] == 0:
                layers: list[tuple[str, int, Mapping[str, Any]]] = [(kind, 1, {}) for kind in self.mixers]
                made = model_spec(choices, layers, self.vocabulary, self.max_length).operators
                operators |= dict.fromkeys(made)
        mixers, ffns = ([each for each in operators if (each.kind == FFN) is is_ffn] for is_ffn in (False, True))
        return Menu(
            tuple(mixers), tuple(ffns) if most_ffns else (), min(self.most_layers, self.max_operators), most_ffns
        )

    # ---- Figures ---------------------------------------------------------------------------------------

    @cached_property
    def figures(self) -> Figures:
        """Costs and features; made when they are first needed."""
        context = int(self.workload.context or 1)
        table = work_table(self.options, self.mixers, context, self.max_length)
        return Figures(self.options, self.mixers, self.vocabulary, table, self.decisions, self.parts())

    def costs(self, genotypes: Genotypes) -> Costs:
        """See :meth:`Figures.costs`."""
        return self.figures.costs(genotypes)

    def encode(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """See :class:`Figures`."""
        return self.figures.features(genotypes)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self.figures.names

    @property
    def feature_units(self) -> npt.NDArray[np.float64]:
        return self.figures.units

    def additive_encoding(self) -> AdditiveEncoding | None:
        """See :meth:`SearchSpace.additive_encoding`."""
        return self.figures.encoding

    # ---- Repairs -----------------------------------------------------------------------------------------

    def values(self, genotypes: Genotypes, name: str, constants: Sequence[Choice] = ()) -> npt.NDArray[Any]:
        """Choices ``(N,)`` of a decision, or of an option or decision that is constant."""
        if name in self.algebra.index:
            column = self.algebra.index[name]
            return np.array(self.decisions[column].choices)[genotypes[:, column]]
        choices = constants or self.options.choices()[name]
        return np.full(len(genotypes), choices[0])

    def with_reader(self, decision: str) -> list[str]:
        """Mixers that depend on ``kv_heads`` or ``window``."""
        return [kind for kind in self.mixers if reads(kind, decision)]

    def _lower(self, genotypes: Genotypes, name: str, most: npt.NDArray[Any], divides: Any = None) -> None:
        """Lowers a decision, in place, to its largest choice that is at most ``most`` (N,) and, of those, divides
        ``divides`` (N,); to the first choice if there is none."""
        if name not in self.algebra.index:
            return
        column = self.algebra.index[name]
        choices = np.array(self.decisions[column].choices)
        allowed = choices[None] <= most[:, None]
        if divides is not None:
            allowed &= divides[:, None] % choices[None] == 0
        allowed &= np.arange(len(choices))[None] <= genotypes[:, column, None]
        last = len(choices) - 1 - np.argmax(allowed[:, ::-1], axis=1)
        genotypes[:, column] = np.where(allowed.any(axis=1), last, 0).astype(GENE_DTYPE)

    def _fit_kv_heads(self, genotypes: Genotypes) -> None:
        heads = self.values(genotypes, "width") // self.values(genotypes, "head_size")
        for name in self.algebra.index:
            if name.rpartition(".")[2] == "kv_heads":
                self._lower(genotypes, name, heads, divides=heads)

    def _check_smallest(self) -> None:
        """Every repair must find a choice."""
        row = np.zeros((1, len(self.decisions)), dtype=GENE_DTYPE)
        fewest = int(self.figures.operators(row)[0])
        if fewest > self.max_operators:
            raise SpaceError(
                "fewer than those of the smallest network",
                field="max_operators",
                value=self.max_operators,
                allowed=f"{fewest} or more",
            )
        if self.options.exit_after[0] >= fewest:
            raise SpaceError(
                "the earliest exit is after the smallest network's end",
                field="exit_after",
                value=self.options.exit_after[0],
                allowed=f"0 to {fewest - 1}",
            )
