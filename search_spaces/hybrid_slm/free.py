"""Hybrid language models whose layers are chosen one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ...errors import SpaceError
from ..algebra import GENE_DTYPE, Genotypes
from ..decision import Choice, Decision
from ..hat.sizes import checked_choices
from .base import LanguageModelSpace, Layer
from .figures import Genes, Part
from .options import DECISIONS, checked_mixers
from .work import FloatArray, reads

APART = ("kv_heads", "window", "ffn_ratio")
"""Options that each layer chooses itself."""

PUBLISHED = ("deltanet", "mamba2", "attention", "mamba2") * 2 + ("deltanet", "mamba2") * 2
"""Mixers of Nemotron-Flash (2511.18890), a feed-forward after each."""


class HybridSLMFree(LanguageModelSpace):
    """Layers of a mixer and its feed-forwards, each chosen by itself.

    Decisions: ``layers``; of each layer ``<i>``, from 1, ``layer<i>.mixer``, ``layer<i>.ffns`` and, where there are
    several choices, ``layer<i>.kv_heads`` and ``layer<i>.window`` (of mixers that have any) and ``layer<i>.ffn_ratio``;
    and the options that all layers share, as in :class:`~gnomon.search_spaces.hybrid_slm.space.HybridSLM`.

    Too many operators are cut from the end: fewer layers, then fewer feed-forwards in the last ones.

    Args:
        layers: Numbers of mixers.
        vocabulary, mixers, ffns, max_operators, widths, head_sizes, kv_heads, windows, ffn_ratios, tied, meta_tokens,
            exit_after, skips, max_length, context, prompt_length, generated_length, batch, phase: As of
            :class:`~gnomon.search_spaces.hybrid_slm.space.HybridSLM`.
    """

    name: ClassVar[str] = "hybrid_slm_free"

    def __init__(
        self,
        vocabulary: int | None = None,
        mixers: Sequence[str] = ("attention", "mamba2", "deltanet"),
        layers: Sequence[int] = (2, 4, 6, 8, 10, 12),
        ffns: Sequence[int] = (0, 1, 2),
        max_operators: int = 30,
        widths: Sequence[int] = (128, 192, 256, 320, 384),
        head_sizes: Sequence[int] = (32,),
        kv_heads: Sequence[int] = (1, 2, 4),
        windows: Sequence[int] = (512,),
        ffn_ratios: Sequence[float] = (3.0,),
        tied: Sequence[bool] = (True,),
        meta_tokens: Sequence[int] = (0,),
        exit_after: Sequence[int] = (0,),
        skips: Sequence[bool] = (False,),
        max_length: int | None = None,
        context: int | None = None,
        prompt_length: int | None = None,
        generated_length: int | None = None,
        batch: int = 1,
        phase: str = "step",
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        counts = tuple(ffns)
        if not counts or list(counts) != sorted(set(counts)) or not set(counts) <= {0, 1, 2}:
            raise SpaceError("not choices", field="ffns", value=ffns, allowed="of 0, 1, 2, ascending")
        self._depths = checked_choices("layers", layers)
        own = {"kv_heads": tuple(kv_heads), "window": tuple(windows), "ffn_ratio": tuple(ffn_ratios)}
        self._layer_choices: dict[str, tuple[Any, ...]] = {"mixer": checked_mixers(mixers), "ffns": counts, **own}
        super().__init__(arguments, self._decisions())

    @classmethod
    def chosen_apart(cls) -> tuple[str, ...]:
        """See :meth:`LanguageModelSpace.chosen_apart`."""
        return APART

    def layers_of(self, config: Mapping[str, Any]) -> list[Layer]:
        """See :meth:`LanguageModelSpace.layers_of`."""
        layers = []
        for index in range(1, config.get("layers", self._depths[0]) + 1):
            prefix = f"layer{index}."
            of = {gene: config.get(prefix + gene, choices[0]) for gene, choices in self._layer_choices.items()}
            layers.append(Layer(of["mixer"], of["ffns"], {name: of[name] for name in APART}))
        return layers

    @property
    def most_layers(self) -> int:
        """See :meth:`LanguageModelSpace.most_layers`."""
        return int(self._depths[-1])

    def shortened(self, genotypes: Genotypes) -> Genotypes:
        """See :meth:`LanguageModelSpace.shortened`."""
        genes = [("layers", len(self._depths))]
        genes += [(f"layer{index}.ffns", len(self._layer_choices["ffns"])) for index in range(self._depths[0], 0, -1)]
        long = np.flatnonzero(self.figures.operators(genotypes) > self.max_operators)
        for name, count in genes:
            column = self.algebra.index.get(name)
            for _ in range(0 if column is None else count - 1):
                genotypes[long, column] -= (genotypes[long, column] > 0).astype(GENE_DTYPE)
                long = long[self.figures.operators(genotypes[long]) > self.max_operators]
        return genotypes

    def parts(self) -> list[Part]:
        """A part a layer."""
        return [self._part(index) for index in range(1, self._depths[-1] + 1)]

    def _part(self, index: int) -> Part:
        exists = np.array([depth >= index for depth in self._depths], dtype=np.float64)
        ffns = np.array(self._layer_choices["ffns"], dtype=np.float64)
        mixer_name, ffns_name = f"layer{index}.mixer", f"layer{index}.ffns"

        def counts(genes: Genes) -> FloatArray:
            length = max(len(values) for values in genes.values())
            zeros = np.zeros(length, dtype=np.int64)
            made = np.zeros((length, len(self.mixers) + 1))
            here = exists[genes.get("layers", zeros)]
            made[np.arange(length), genes.get(mixer_name, zeros)] = here
            made[:, -1] = here * ffns[genes.get(ffns_name, zeros)]
            return made

        own = {name: f"layer{index}.{name}" for name in APART}
        return Part(("layers", mixer_name, ffns_name), counts, own)

    def _decisions(self) -> list[Decision]:
        choices = self._layer_choices
        found = [Decision("layers", self._depths, ordered=True)] if len(self._depths) > 1 else []
        readers = {
            name: tuple(kind for kind in choices["mixer"] if reads(kind, name)) for name in ("kv_heads", "window")
        }
        for index in range(1, self._depths[-1] + 1):
            deeper = tuple(depth for depth in self._depths if depth >= index)
            exists = {"layers": deeper} if len(deeper) < len(self._depths) else {}
            for gene in ("mixer", "ffns", *APART):
                of = readers.get(gene, choices["mixer"])
                if len(choices[gene]) == 1 or not of:
                    continue
                reading = {f"layer{index}.mixer": of} if len(of) < len(choices["mixer"]) else {}
                ffn = self._with_ffn(index) if gene == "ffn_ratio" else {}
                ordered = gene != "mixer"
                found.append(
                    Decision(f"layer{index}.{gene}", choices[gene], {**exists, **reading, **ffn}, ordered=ordered)
                )
        return found

    def _with_ffn(self, index: int) -> dict[str, tuple[Choice, ...]]:
        """The condition that a layer has a feed-forward."""
        some = tuple(count for count in self._layer_choices["ffns"] if count)
        return {f"layer{index}.ffns": some} if 0 < len(some) < len(self._layer_choices["ffns"]) else {}

    # ---- Named -------------------------------------------------------------------------------------

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """All mixers alike with a feed-forward after each (``attention_6``), the deepest attention first, at other
        widths than the largest with the width (``attention_6_w128``); and ``nemotron_flash``, the published order of
        operators."""
        kinds = sorted(self.mixers, key=lambda kind: kind != "attention")
        widths = self.options.widths[::-1]
        named: dict[str, dict[str, Choice]] = {}
        for width in widths:
            suffix = "" if width == widths[0] else f"_w{width}"
            patterns = {
                f"{kind.rpartition('.')[2]}_{depth}": (kind,) * depth for kind in kinds for depth in self._depths[::-1]
            }
            for name, pattern in {**patterns, "nemotron_flash": PUBLISHED}.items():
                config = self._of_pattern(width, pattern)
                if config is not None:
                    named[name + suffix] = config
        return named

    def _of_pattern(self, width: int, pattern: Sequence[str]) -> dict[str, Choice] | None:
        """The network of these mixers; None if the space lacks it."""
        ffns = min(self._layer_choices["ffns"], key=lambda count: abs(int(count) - 1))
        known = len(pattern) in self._depths and set(pattern) <= set(self.mixers)
        if not known or len(pattern) * (1 + ffns) > self.max_operators:
            return None
        row = np.zeros((1, len(self.decisions)), dtype=GENE_DTYPE)
        wanted: dict[str, Choice] = {DECISIONS["widths"]: width, "layers": len(pattern)}
        for index, kind in enumerate(pattern, 1):
            last = {f"layer{index}.{name}": self._layer_choices[name][-1] for name in ("kv_heads", "window")}
            wanted |= {f"layer{index}.mixer": kind, f"layer{index}.ffns": ffns, **last}
        for name, value in wanted.items():
            if name in self.algebra.index:
                column = self.algebra.index[name]
                row[0, column] = self.decisions[column].choices.index(value)
        return self.config(self.canonical(row)[0])
