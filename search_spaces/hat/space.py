"""HAT's space of encoder-decoder transformers (Wang et al., 2005.14187), from toy sizes to the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import SpaceError
from ..additive import AdditiveEncoding
from ..algebra import GENE_DTYPE, Genotypes
from ..base import SearchSpace
from ..costs import Costs
from ..decision import Choice
from ..deployable import Deployable
from ..workload import Workload
from . import genes
from .figures import Figures
from .sizes import Sizes, checked_choices, checked_count, checked_dropout, checked_vocabulary
from .specs import Sharing, TransformerSpec

if TYPE_CHECKING:
    from torch import nn

    from .elastic import SuperTransformer
    from .transformer import Transformer


DEFAULTS: Mapping[str, int] = {
    "source_vocabulary": 1000,
    "target_vocabulary": 1000,
    "source_length": 20,
    "generated_length": 20,
    "beam": 1,
    "max_length": 256,
}
"""Values of arguments that were left None: a task knows its own."""


class TransformerSpace(SearchSpace):
    """What spaces of transformers share: everything but which decisions there are.

    A model is a :class:`~gnomon.search_spaces.sequence.SequenceToSequence`; what a device runs are two
    graphs, one that reads the source once and one for each token, see :mod:`gnomon.search_spaces.hat.graphs`.
    """

    def __init__(self, sizes: Sizes, arguments: Mapping[str, Any]) -> None:
        arguments = {name: DEFAULTS.get(name) if value is None else value for name, value in arguments.items()}
        source_length = checked_count("source_length", arguments["source_length"])
        workload = Workload(
            (source_length,),
            source_length=source_length,
            generated_length=checked_count("generated_length", arguments["generated_length"]),
            beam=checked_count("beam", arguments["beam"]),
        )
        self.sizes = sizes
        self.vocabulary = checked_vocabulary(
            arguments["source_vocabulary"],
            arguments["target_vocabulary"],
            arguments["shared_embeddings"],
            arguments["max_length"],
        )
        _check_fits(workload, self.vocabulary.max_length)
        self.dropout = checked_dropout(arguments["dropout"])
        self._arguments = {
            name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for name, value in arguments.items()
        }
        super().__init__(genes.decisions(sizes), workload)

    def arguments(self) -> dict[str, Any]:
        return dict(self._arguments)

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """Transformers with all layers alike, see :func:`~gnomon.search_spaces.hat.genes.plain_networks`, and
        the ``smallest`` and ``largest`` of the space."""
        return {**genes.plain_networks(self.sizes), "smallest": self._extreme(0), "largest": self._extreme(-1)}

    @property
    def log10_size(self) -> float:
        """log10 of the number of architectures, exactly."""
        return genes.log10_size(self.sizes)

    def repair(self, genotypes: Genotypes) -> Genotypes:
        """Layers that attend to more encoder layers than there are attend to as many as there are."""
        if not self._attended_columns:
            return genotypes
        depths = np.array(self.sizes.encoder_layers)[genotypes[:, self.algebra.index["encoder.layers"]]]
        most = (np.searchsorted(np.array(self.sizes.attended), depths, side="right") - 1).astype(GENE_DTYPE)
        result = genotypes.copy()
        result[:, self._attended_columns] = np.minimum(result[:, self._attended_columns], most[:, None])
        return result

    def spec_of(self, config: Mapping[str, Any]) -> TransformerSpec:
        """The layers of a config.

        Raises:
            SpaceError: If it is none of this space.
        """
        config = self.config(self.genotype(config))
        return genes.spec_of(config, self.vocabulary, self.sizes.qkv_width, self.dropout)

    def build(self, config: Mapping[str, Any]) -> Transformer:
        """A network from source tokens ``(S, L)`` and target tokens ``(S, T)`` to logits ``(S, T, V)``."""
        from .transformer import Transformer

        return Transformer(self.spec_of(config))

    def elastic(self) -> SuperTransformer:
        """See :meth:`SearchSpace.elastic`."""
        from .elastic import SuperTransformer

        return SuperTransformer(self.spec_of(self._extreme(-1)), self.sizes.widths, self.spec_of)

    def graph_modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """See :meth:`SearchSpace.graph_modules`.

        Raises:
            SpaceError: If the model is none of these transformers.
        """
        from .graphs import ReadingGraph, StepGraph
        from .interface import READERS, STEP
        from .transformer import Transformer

        if not isinstance(model, Transformer):
            raise SpaceError("not a network of this space", field="model", value=type(model).__name__)
        reader = READERS[0] if self.sizes.encoder_layers else READERS[1]
        return {reader: ReadingGraph(model, self.workload.beam), STEP: StepGraph(model)}

    def deployable(self, config: Mapping[str, Any], workload: Workload | None = None) -> Deployable:
        """Two graphs and a plan: read once, then as many steps as tokens are generated.

        Raises:
            SpaceError: If the workload does not say how long sentences are, or they are too long.
        """
        from .graphs import graphs

        workload = workload or self.workload
        _check_fits(workload, self.vocabulary.max_length)
        architecture = self.architecture(self.genotype(config))
        made, plan = graphs(self.spec_of(config), workload, lambda: self.build(config))
        return Deployable(architecture.key, workload, made, plan, architecture)

    @cached_property
    def figures(self) -> Figures:
        """Costs and features of every layer."""
        return Figures(self.sizes, self.vocabulary, self.decisions, self.workload)

    def costs(self, genotypes: Genotypes) -> Costs:
        """See :meth:`Figures.costs`."""
        return self.figures.costs(genotypes)

    def encode(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """See :meth:`Figures.features`."""
        return self.figures.features(genotypes)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self.figures.names

    def additive_encoding(self) -> AdditiveEncoding:
        """See :meth:`SearchSpace.additive_encoding`."""
        return self.figures.encoding

    @property
    def feature_units(self) -> npt.NDArray[np.float64]:
        return self.figures.units

    def _extreme(self, end: int) -> dict[str, Choice]:
        """The smallest (0) or largest (-1) network."""
        s = self.sizes
        depths = (s.encoder_layers[end] if s.encoder_layers else 0, s.decoder_layers[end])
        attended = max((n for n in s.attended[: 1 if end == 0 else None] if n <= depths[0]), default=0)
        return genes.uniform(s, *depths, s.widths[end], s.ffn_widths[end], s.heads[end], attended)

    @cached_property
    def _attended_columns(self) -> list[int]:
        return [column for name, column in self.algebra.index.items() if name.endswith(".attended")]


class HATSpace(TransformerSpace):
    """Encoder-decoder transformers in which every width is chosen: HAT's SuperTransformer space.

    Decisions: ``encoder.width``, ``encoder.layers``, ``decoder.width``, ``decoder.layers``; for each layer
    ``ffn`` and heads of each attention; for each decoder layer ``attended``, how many of the last encoder
    layers it reads, side by side and without further weights. The encoder's depth, which HAT fixes at 6,
    may be a choice, too. ``conf/space/hat_wmt.yaml`` has the paper's sizes.

    Layers normalise first (pre-norm) where HAT's normalise last: short trainings of shared weights need it,
    and the latency is the same but for two norms.

    Args:
        source_vocabulary, target_vocabulary: Number of tokens, the special ones included. None, here and
            below, is what the task says, and ``DEFAULTS`` without a task.
        widths, ffn_widths, heads, encoder_layers, decoder_layers, attended, qkv_width: See
            :class:`~gnomon.search_spaces.hat.sizes.Sizes`.
        source_length, generated_length, beam: What latency is measured at: tokens of the source with its end,
            tokens generated, beams.
        shared_embeddings: ``none``, ``target`` (target tokens and output layer) or ``all`` (source, too).
        max_length: Longest sentence.
        dropout: In training; of networks narrower than the widest in proportion, where weights are shared.
    """

    name: ClassVar[str] = "hat"

    def __init__(
        self,
        source_vocabulary: int | None = None,
        target_vocabulary: int | None = None,
        widths: Sequence[int] = (48, 64),
        ffn_widths: Sequence[int] = (64, 128, 192),
        heads: Sequence[int] = (2, 4),
        encoder_layers: Sequence[int] = (1, 2, 3),
        decoder_layers: Sequence[int] = (1, 2, 3, 4),
        attended: Sequence[int] = (1, 2, 3),
        qkv_width: int = 64,
        source_length: int | None = None,
        generated_length: int | None = None,
        beam: int | None = None,
        shared_embeddings: Sharing = "target",
        max_length: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        sizes = Sizes(
            checked_choices("widths", widths),
            checked_choices("ffn_widths", ffn_widths),
            checked_choices("heads", heads),
            checked_choices("encoder_layers", encoder_layers),
            checked_choices("decoder_layers", decoder_layers),
            checked_choices("attended", attended),
            checked_count("qkv_width", qkv_width),
        )
        super().__init__(
            sizes,
            {
                "source_vocabulary": source_vocabulary,
                "target_vocabulary": target_vocabulary,
                "widths": widths,
                "ffn_widths": ffn_widths,
                "heads": heads,
                "encoder_layers": encoder_layers,
                "decoder_layers": decoder_layers,
                "attended": attended,
                "qkv_width": qkv_width,
                "source_length": source_length,
                "generated_length": generated_length,
                "beam": beam,
                "shared_embeddings": shared_embeddings,
                "max_length": max_length,
                "dropout": dropout,
            },
        )


def _check_fits(workload: Workload, max_length: int) -> None:
    for field in ("source_length", "generated_length"):
        length = getattr(workload, field)
        if length is None or not 1 <= length <= max_length:
            raise SpaceError(
                "not a length of these sentences", field=f"workload.{field}", value=length, allowed=f"1 to {max_length}"
            )
