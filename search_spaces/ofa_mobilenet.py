"""Once-for-All's space of MobileNetV3 sub-networks (Cai et al., 1908.09791, Section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError
from .algebra import Genotypes
from .cost_tables import CostTables
from .decision import Choice, Decision
from .deployable import Graph, TensorSpec
from .image_shape import checked_classes, checked_image_shape, checked_width
from .layer_specs import LayerSpec
from .ofa_skeleton import MAX_DEPTH, STAGES, OFASkeleton, make_layer, make_skeleton
from .ofa_tables import make_tables
from .tabled import TabledSpace
from .workload import Workload

if TYPE_CHECKING:
    from torch import nn

    from .elastic.conv import KernelSharing
    from .ofa_elastic import ElasticOFA

DEPTHS, KERNELS, EXPANSIONS = (2, 3, 4), (3, 5, 7), (3, 4, 6)
RESOLUTIONS = tuple(range(128, 225, 4))
MIN_EDGE = 32


class OFAMobileNet(TabledSpace):
    """MobileNetV3-Large's skeleton with five elastic stages: each has 2 to 4 layers, each layer a
    kernel of 3, 5 or 7 and an expansion of 3, 4 or 6; the image is 128 to 224 pixels wide and high.

    Decisions: ``resolution``; for each stage ``stage<i>.depth``; for each of its layers
    ``stage<i>.layer<j>.kernel`` and ``.expansion``, which matter only if the stage is that deep.

    The network is the authors' (ofa_mbv3, width 1.0): channels 16, 24, 40, 80, 112, 160; strides
    2, 2, 2, 1, 2; ReLU in the first two stages, hard swish in the others; squeeze-and-excitation
    (a quarter of the expanded channels, rounded to 8) in stages 2, 4 and 5; then 960 channels,
    global pooling, 1280 channels, classifier. :meth:`build` makes sub-networks that stand alone, :meth:`elastic`
    the Once-for-All network.

    A model takes images of the workload's shape and first resizes them to its own resolution
    (bilinear). The graph that is exported and measured takes images of that resolution, so that
    nothing is resized in it.

    Args:
        input_shape: ``(channels, edge, edge)`` of an image.
        classes: Number of classes.
        width: Multiplies all filters.
        resolutions: Image edges to choose from, ascending; None for the paper's 128, 132 ... 224
            where images are 224 pixels wide, else for the images' own edge alone.
    """

    name: ClassVar[str] = "ofa_mobilenet"

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 224, 224),
        classes: int = 1000,
        width: float = 1.0,
        resolutions: Sequence[int] | None = None,
    ) -> None:
        channels, (height, edge) = checked_image_shape(input_shape, smallest=MIN_EDGE)
        if height != edge:
            raise SpaceError(
                "images are not square", field="input_shape", value=input_shape, allowed="[channels, edge, edge]"
            )
        if resolutions is None:
            resolutions = RESOLUTIONS if edge == RESOLUTIONS[-1] else (edge,)
        self._resolutions = _checked_resolutions(resolutions)
        self.skeleton: OFASkeleton = make_skeleton(channels, checked_classes(classes), checked_width(width))
        self._arguments = {
            "input_shape": list(input_shape),
            "classes": classes,
            "width": float(width),
            "resolutions": list(self._resolutions),
        }
        super().__init__(_decisions(self._resolutions), Workload(tuple(input_shape)))

    def arguments(self) -> dict[str, Any]:
        return dict(self._arguments)

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """``middle`` (depth 3, kernel 5, expansion 4, the reference), ``largest`` and ``smallest``."""
        middle = self._resolutions[len(self._resolutions) // 2]
        return {
            "middle": self._uniform(middle, 3, 5, 4),
            "largest": self._uniform(self._resolutions[-1], 4, 7, 6),
            "smallest": self._uniform(self._resolutions[0], 2, 3, 3),
        }

    def layer_specs(self, config: Mapping[str, Any]) -> list[tuple[LayerSpec, ...]]:
        """The layers of the fixed first block and of each stage, as :meth:`build` makes them."""
        config = self.config(self.genotype(config))
        blocks: list[tuple[LayerSpec, ...]] = [(self.skeleton.first,)]
        for stage in range(len(STAGES)):
            genes = [
                (config[f"{_layer_name(stage, layer)}.kernel"], config[f"{_layer_name(stage, layer)}.expansion"])
                for layer in range(int(config[f"{_stage_name(stage)}.depth"]))
            ]
            blocks.append(
                tuple(
                    make_layer(self.skeleton, stage, layer, int(kernel), int(expansion))
                    for layer, (kernel, expansion) in enumerate(genes)
                )
            )
        return blocks

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Images ``(batch, channels, edge, edge)`` of any edge to logits ``(batch, classes)``."""
        from .ofa_modules import OFAClassifier

        specs = self.layer_specs(config)
        return OFAClassifier(self.skeleton, specs, int(config["resolution"]))

    def elastic(self, sharing: KernelSharing = "transform") -> ElasticOFA:
        """All networks in one set of weights: the Once-for-All network.

        Args:
            sharing: How a smaller depthwise kernel comes from a larger one: a crop that a matrix transforms
                (``transform``, as in the paper), its ``crop``, or ``own`` weights.
        """
        from .ofa_elastic import ElasticOFA

        return ElasticOFA(self, sharing)

    def module_graph(self, config: Mapping[str, Any]) -> Graph:
        """The graph with the architecture's own resolution."""
        edge = int(config["resolution"])
        shape = (self.workload.batch, self.workload.input_shape[0], edge, edge)
        return Graph(
            inputs=(TensorSpec("input", shape, dynamic_axes={0: "batch"}),),
            outputs=("output",),
            module=lambda: self.build(config),
        )

    @cached_property
    def tables(self) -> CostTables:
        """Costs and features of every layer at every resolution."""
        return make_tables(self.skeleton, self._resolutions, self.decisions, self.algebra.index)

    def genotypes_from_archs(self, archs: Sequence[Mapping[str, Any]]) -> Genotypes:
        """Rows ``(N, D)`` of sub-networks as OFA and HELP write them: ``ks`` and ``e`` of 20
        layers (those beyond a stage's depth are ignored), ``d`` of 5 stages, ``r``.

        Raises:
            SpaceError: If lists have other lengths, or a value is not a choice of this space.
        """
        raw = np.array(
            [[int(arch["r"]), *map(int, arch["d"]), *map(int, arch["ks"]), *map(int, arch["e"])] for arch in archs],
            dtype=np.int64,
        )
        layers = len(STAGES) * MAX_DEPTH
        if raw.ndim != 2 or raw.shape[1] != 1 + len(STAGES) + 2 * layers:
            raise SpaceError(
                "not sub-networks of this space", field="archs", value=raw.shape, allowed="20 ks, 20 e, 5 d"
            )
        names = [
            "resolution",
            *(f"{_stage_name(stage)}.depth" for stage in range(len(STAGES))),
            *(
                f"{_layer_name(stage, layer)}.{gene}"
                for gene in ("kernel", "expansion")
                for stage in range(len(STAGES))
                for layer in range(MAX_DEPTH)
            ),
        ]
        rows = np.zeros((len(raw), len(self.decisions)), dtype=np.int64)
        for values, name in zip(raw.T, names, strict=True):
            column = self.algebra.index[name]
            rows[:, column] = _choice_indices(values, self.decisions[column])
        return self.canonical(self.algebra.validate(rows))

    def _uniform(self, resolution: int, depth: int, kernel: int, expansion: int) -> dict[str, Choice]:
        config: dict[str, Choice] = {"resolution": resolution}
        for stage in range(len(STAGES)):
            config[f"{_stage_name(stage)}.depth"] = depth
            for layer in range(depth):
                config[f"{_layer_name(stage, layer)}.kernel"] = kernel
                config[f"{_layer_name(stage, layer)}.expansion"] = expansion
        return config


def _stage_name(stage: int) -> str:
    return f"stage{stage + 1}"


def _layer_name(stage: int, layer: int) -> str:
    return f"{_stage_name(stage)}.layer{layer + 1}"


def _decisions(resolutions: tuple[int, ...]) -> tuple[Decision, ...]:
    decisions = [Decision("resolution", resolutions, ordered=True)]
    for stage in range(len(STAGES)):
        depth = f"{_stage_name(stage)}.depth"
        decisions.append(Decision(depth, DEPTHS, ordered=True))
        for layer in range(MAX_DEPTH):
            deep_enough = tuple(choice for choice in DEPTHS if choice > layer)
            when = {} if deep_enough == DEPTHS else {depth: deep_enough}
            name = _layer_name(stage, layer)
            decisions.append(Decision(f"{name}.kernel", KERNELS, when, ordered=True))
            decisions.append(Decision(f"{name}.expansion", EXPANSIONS, when, ordered=True))
    return tuple(decisions)


def _choice_indices(values: npt.NDArray[np.int64], decision: Decision) -> npt.NDArray[np.int64]:
    choices = np.array(decision.choices, dtype=np.int64)  # ascending
    found = np.minimum(np.searchsorted(choices, values), len(choices) - 1)
    wrong = choices[found] != values
    if wrong.any():
        raise SpaceError("no such choice", field=decision.name, value=int(values[wrong][0]), allowed=decision.choices)
    return found.astype(np.int64)


def _checked_resolutions(resolutions: Sequence[int]) -> tuple[int, ...]:
    edges = tuple(resolutions)
    if (
        not edges
        or any(isinstance(edge, bool) or not isinstance(edge, int) or edge < MIN_EDGE for edge in edges)
        or list(edges) != sorted(set(edges))
    ):
        raise SpaceError(
            "not image edges",
            field="resolutions",
            value=resolutions,
            allowed=f"ascending integers of {MIN_EDGE} or more",
        )
    return edges
