"""Nemotron-Flash's template of hybrid language models (2511.18890, section 3.2): stages of alternating mixers."""

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
from .options import DECISIONS
from .work import FloatArray

STAGES = 3
RATIOS = ("0:1", "1:1", "1:2", "1:3")
"""First mixers to second ones in a block; the first stand before the second."""
GENES = ("blocks", "ffns", "ratio", "first", "second")

PATTERN = (("deltanet", "mamba2"), ("attention", "mamba2"), ("deltanet", "mamba2"))
"""Mixers of each stage of the network ``nemotron_flash``."""


class HybridSLM(LanguageModelSpace):
    """Three stages, each of equal blocks of one or two kinds of mixers.

    Decisions of each stage ``<i>``, from 1: ``stage<i>.ratio``, how many mixers of kind ``stage<i>.first`` and then of
    kind ``stage<i>.second`` a block has; ``stage<i>.ffns``, feed-forwards after each mixer; ``stage<i>.blocks``. And a
    decision for each option of which there are several choices: ``width``, ``head_size``, ``kv_heads``, ``window``,
    ``ffn_ratio``, ``tied``, ``meta_tokens``, ``exit_after``, ``skips``.

    Too many operators are cut from the end: fewer blocks in the last stage, then fewer feed-forwards, then a lower
    ratio, then the stage before. A stage whose two kinds are the same has the ratio 0:1.

    Args:
        vocabulary: Number of tokens. None, here and below, is what the task says, and ``DEFAULT_VOCABULARY`` or
            ``DEFAULT_LENGTH`` of :mod:`.options` without a task.
        mixers: Kinds, see :func:`~gnomon.search_spaces.hybrid_slm.mixers.mixer_kinds`, or paths of classes.
        ratios: Out of :data:`RATIOS`.
        ffns: Feed-forwards after each mixer of a stage.
        blocks: Of a stage.
        max_operators: Mixers and feed-forwards of a network at most.
        widths, head_sizes, kv_heads, windows, ffn_ratios, tied, meta_tokens, exit_after, skips: See
            :class:`~gnomon.search_spaces.hybrid_slm.options.Options`.
        max_length: Longest sequence, meta tokens not counted.
        context: Tokens before the one that is timed; None: as long as sequences may be.
        prompt_length, generated_length: Tokens of ``prefill``, and steps after it in the phase that has both. None:
            half of the context, and 64 or what then fits.
        batch: Sequences at once.
        phase: What latency is of: ``step`` (a token at ``context``), ``prefill`` (the prompt: time to first token), or
            empty for the prompt and all that is generated.
    """

    name: ClassVar[str] = "hybrid_slm"

    def __init__(
        self,
        vocabulary: int | None = None,
        mixers: Sequence[str] = ("attention", "mamba2", "deltanet"),
        ratios: Sequence[str] = RATIOS,
        ffns: Sequence[int] = (0, 1, 2),
        blocks: Sequence[int] = (1, 2, 3, 4),
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
        self._stage_choices = _checked(mixers, ratios, ffns, blocks)
        super().__init__(arguments, _decisions(self._stage_choices))

    # ---- Decisions ---------------------------------------------------------------------------------

    def layers_of(self, config: Mapping[str, Any]) -> list[Layer]:
        """See :meth:`LanguageModelSpace.layers_of`."""
        layers = []
        for stage in range(1, STAGES + 1):
            of = {gene: config.get(_name(stage, gene), choices[0]) for gene, choices in self._stage_choices.items()}
            first, second = _parts_of(of["ratio"])
            kinds = [of["first"]] * first + [of["second"]] * second
            layers += [Layer(kind, of["ffns"], {}) for kind in kinds * of["blocks"]]
        return layers

    @property
    def most_layers(self) -> int:
        """See :meth:`LanguageModelSpace.most_layers`."""
        mixers = max(sum(_parts_of(ratio)) for ratio in self._stage_choices["ratio"])
        return int(STAGES * mixers * max(self._stage_choices["blocks"]))

    def shortened(self, genotypes: Genotypes) -> Genotypes:
        """See :meth:`LanguageModelSpace.shortened`."""
        self._part_equal_mixers(genotypes)
        long = np.flatnonzero(self.figures.operators(genotypes) > self.max_operators)
        for stage in range(STAGES, 0, -1):
            for gene in GENES[:3]:
                column = self.algebra.index.get(_name(stage, gene))
                for _ in range(0 if column is None else len(self._stage_choices[gene]) - 1):
                    genotypes[long, column] -= (genotypes[long, column] > 0).astype(GENE_DTYPE)
                    long = long[self.figures.operators(genotypes[long]) > self.max_operators]
        self._forget_unread(genotypes)
        return genotypes

    def parts(self) -> list[Part]:
        """A part a stage."""
        return [self._part(stage) for stage in range(1, STAGES + 1)]

    def _part(self, stage: int) -> Part:
        choices = self._stage_choices
        first, second = np.array([_parts_of(str(ratio)) for ratio in choices["ratio"]], dtype=np.float64).T
        blocks, ffns = (np.array(choices[gene], dtype=np.float64) for gene in ("blocks", "ffns"))
        names = {gene: _name(stage, gene) for gene in GENES}

        def counts(genes: Genes) -> FloatArray:
            length = max(len(values) for values in genes.values())
            of = {gene: genes.get(name, np.zeros(length, dtype=np.int64)) for gene, name in names.items()}
            made, rows = np.zeros((length, len(self.mixers) + 1)), np.arange(length)
            repeats = blocks[of["blocks"]]
            made[rows, of["first"]] += first[of["ratio"]] * repeats
            made[rows, of["second"]] += second[of["ratio"]] * repeats
            made[:, -1] = made.sum(axis=1) * ffns[of["ffns"]]
            return made

        return Part(tuple(names.values()), counts, {})

    def _part_equal_mixers(self, genotypes: Genotypes) -> None:
        """A stage of twice the same mixer is one of that mixer alone."""
        alone = RATIOS[0]
        if alone not in self._stage_choices["ratio"] or len(self._stage_choices["ratio"]) == 1 or len(self.mixers) == 1:
            return
        for stage in range(1, STAGES + 1):
            ratio, first, second = (self.algebra.index[_name(stage, gene)] for gene in ("ratio", "first", "second"))
            same = genotypes[:, first] == genotypes[:, second]
            genotypes[same, ratio] = self._stage_choices["ratio"].index(alone)

    def _forget_unread(self, genotypes: Genotypes) -> None:
        """KV heads and windows of networks without a mixer that has any are the first choice."""
        for decision in ("kv_heads", "window"):
            if decision not in self.algebra.index:
                continue
            reading = [self.mixers.index(kind) for kind in self.with_reader(decision)]
            genes = {name: genotypes[:, column].astype(np.int64) for name, column in self.algebra.index.items()}
            counts = np.sum([part.counts(genes) for part in self.parts()], axis=0)
            genotypes[counts[:, reading].sum(axis=1) == 0, self.algebra.index[decision]] = 0

    # ---- Named -------------------------------------------------------------------------------------

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """All mixers alike, by kind and number of mixers (``attention_6``), the deepest attention first; at widths
        other than the largest with the width after it (``attention_6_w128``); and ``nemotron_flash`` with the published
        numbers of operators (2 attention, 4 DeltaNet, 6 Mamba2, 12 feed-forwards) in an order that the template has."""
        kinds = sorted(self.mixers, key=lambda kind: kind != "attention")
        depths = sorted(self._stage_choices["blocks"], reverse=True)
        widths = self.options.widths[::-1]
        named: dict[str, dict[str, Choice]] = {}
        for width in widths:
            suffix = "" if width == widths[0] else f"_w{width}"
            for kind in kinds:
                for blocks in depths:
                    config = self._plain(width, [(kind, kind)] * STAGES, RATIOS[0], blocks)
                    if config is not None:
                        named[f"{kind.rpartition('.')[2]}_{STAGES * blocks}{suffix}"] = config
            published = self._plain(width, PATTERN, RATIOS[1], 2)
            if published is not None:
                named[f"nemotron_flash{suffix}"] = published
        return named

    def _plain(self, width: int, kinds: Sequence[tuple[str, str]], ratio: str, blocks: int) -> dict[str, Choice] | None:
        """A network of equal stages but for their mixers, a feed-forward after each; None if the space lacks it."""
        ffns = min(self._stage_choices["ffns"], key=lambda count: abs(int(count) - 1))
        config: dict[str, Choice] = {"width": width}
        for stage, (first, second) in enumerate(kinds, 1):
            genes = {"blocks": blocks, "ffns": ffns, "ratio": ratio, "first": first, "second": second}
            if any(genes[gene] not in self._stage_choices[gene] for gene in GENES):
                return None
            if ratio == RATIOS[0]:
                del genes["first"]
            config |= {_name(stage, gene): value for gene, value in genes.items()}
        operators = sum(sum(_parts_of(ratio)) * blocks * (1 + int(ffns)) for _ in kinds)
        if operators > self.max_operators:
            return None
        present = {DECISIONS["kv_heads"]: self.options.kv_heads[-1], DECISIONS["windows"]: self.options.windows[-1]}
        row = self.algebra.genotype(self._completed(config | present))
        return self.config(self.canonical(row[None])[0])

    def _completed(self, config: Mapping[str, Choice]) -> dict[str, Choice]:
        """With the first choice of every option that is left out, and without constants."""
        firsts = {name: choices[0] for name, choices in self.options.choices().items()}
        return {name: value for name, value in {**firsts, **config}.items() if name in self.algebra.index}


def _name(stage: int, gene: str) -> str:
    return f"stage{stage}.{gene}"


def _parts_of(ratio: str) -> tuple[int, int]:
    first, _, second = str(ratio).partition(":")
    return int(first), int(second)


def _checked(
    mixers: Sequence[str], ratios: Sequence[str], ffns: Sequence[int], blocks: Sequence[int]
) -> dict[str, tuple[Any, ...]]:
    """Choices of a stage by gene.

    Raises:
        SpaceError: If some are none.
    """
    if not ratios or list(ratios) != [ratio for ratio in RATIOS if ratio in ratios]:
        raise SpaceError("not choices", field="ratios", value=ratios, allowed=f"of {RATIOS}, in this order")
    counts = tuple(ffns)
    if not counts or list(counts) != sorted(set(counts)) or not set(counts) <= {0, 1, 2}:
        raise SpaceError("not choices", field="ffns", value=ffns, allowed="of 0, 1, 2, ascending")
    kinds = tuple(mixers)
    if len(kinds) == 1:
        ratios = ratios[:1] if ratios[0] == RATIOS[0] else ratios
    return {
        "blocks": checked_choices("blocks", blocks),
        "ffns": counts,
        "ratio": tuple(ratios),
        "first": kinds,
        "second": kinds,
    }


def _decisions(choices: Mapping[str, tuple[Any, ...]]) -> list[Decision]:
    """Of all stages; what has one choice is none."""
    mixed = tuple(ratio for ratio in choices["ratio"] if ratio != RATIOS[0])
    decisions = []
    for stage in range(1, STAGES + 1):
        for gene in GENES:
            condition = {_name(stage, "ratio"): mixed} if gene == "first" and len(choices["ratio"]) > 1 else {}
            needed = gene != "first" or bool(mixed)
            if len(choices[gene]) > 1 and needed:
                ordered = gene in ("blocks", "ffns", "ratio")
                decisions.append(Decision(_name(stage, gene), choices[gene], condition, ordered=ordered))
    return decisions
