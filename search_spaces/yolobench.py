"""The detectors of YOLOBench, as a space: family, scale and resolution (Lazarevich et al. 2023, 2307.13901).

Shapes: N architectures, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError
from .algebra import Genotypes
from .base import SearchSpace
from .costs import Costs
from .decision import Choice, Decision
from .workload import Workload

if TYPE_CHECKING:
    from torch import nn

FAMILIES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "yolo3": ((33, 25), (67, 25), (67, 50), (100, 25)),
    "yolo4": ((33, 25), (33, 50), (100, 25), (100, 50), (100, 100)),
    "yolo5": (
        (33, 25), (33, 50), (67, 25), (67, 50), (67, 75), (67, 100), (100, 25), (100, 50), (100, 75), (100, 100),
    ),
    "yolo6s": ((33, 25), (33, 50), (33, 75), (60, 25), (60, 50)),
    "yolo6m": ((33, 25), (33, 50), (33, 75), (60, 25), (60, 50), (60, 75), (100, 25)),
    "yolo6l": ((33, 25), (33, 50), (33, 75), (60, 25), (60, 50), (100, 25)),
    "yolo7": ((33, 25), (33, 50), (67, 75), (100, 100)),
    "yolo8": (
        (33, 25), (33, 50), (33, 75), (67, 25), (67, 50), (67, 75), (67, 100), (100, 25), (100, 50), (100, 75),
        (100, 100),
    ),
}  # fmt: skip
"""(depth, width) in percent of the full size, of every detector that was trained, by family: 52 in all."""
RESOLUTIONS = tuple(range(160, 481, 32))
_FULL = 640
"""The resolution at which families give their sizes."""


class YOLOBench(SearchSpace):
    """572 detectors: each of 52 (family, depth, width) at 11 resolutions. For recorded studies: their code is not part
    of Gnomon, so nothing of this space is built, exported or trained.

    Depth and width are one decision, ``scale`` (``d33w25``: a third of the full depth, a quarter of the width), of each
    family its own, because not every combination was trained.

    Costs are *nominal*: what compound scaling says of a family's full network at 640 pixels, which counts as 1, with
    width to the second power in parameters and multiply-accumulates and to the first in memory. They compare detectors
    of one family, and of different ones only roughly; they are no counts.
    """

    name: ClassVar[str] = "yolobench"

    def __init__(self) -> None:
        scales = [
            Decision(
                f"scale_{family}",
                tuple(f"d{depth}w{width}" for depth, width in pairs),
                active_when={"family": (family,)},
            )
            for family, pairs in FAMILIES.items()
        ]
        decisions = (
            Decision("family", tuple(FAMILIES)),
            *scales,
            Decision("resolution", RESOLUTIONS, ordered=True),
        )
        super().__init__(decisions, Workload((3, RESOLUTIONS[-1], RESOLUTIONS[-1])))

    def arguments(self) -> dict[str, Any]:
        return {}

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """``yolo8n_320`` (the reference), ``yolo8l_480`` and ``yolo8n_160``, sizes as YOLOv8 calls them."""
        return {
            "yolo8n_320": detector("yolo8", 33, 25, 320),
            "yolo8l_480": detector("yolo8", 100, 100, 480),
            "yolo8n_160": detector("yolo8", 33, 25, 160),
        }

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Raises SpaceError: only what was recorded of these detectors is here."""
        self.genotype(config)
        raise SpaceError(
            "these detectors are known from a table, and cannot be built",
            field="space",
            value=self.name,
            hint="Use quality=recorded_yolobench and device=recorded_yolobench.",
        )

    def costs(self, genotypes: Genotypes) -> Costs:
        depth, width, pixels = self._sizes(genotypes)
        return Costs(
            parameters=depth * width**2,
            macs=depth * width**2 * pixels,
            cio=depth * width * pixels,
            peak_activation_bytes=width * pixels,
        )

    def encode(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Family, logarithms of depth, width and pixels, and nominal work of each family ``(N, 23)``."""
        depth, width, pixels = self._sizes(genotypes)
        family = np.eye(len(FAMILIES))[genotypes[:, 0]]
        work = depth * width**2 * pixels
        columns = [np.log(depth), np.log(width), np.log(pixels), work, depth * width * pixels, width * pixels, pixels]
        return np.concatenate([family, np.stack(columns, axis=1), family * work[:, None]], axis=1).astype(np.float32)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return (
            *(f"family={name}" for name in FAMILIES),
            "log_depth",
            "log_width",
            "log_pixels",
            "work",
            "traffic",
            "map",
            "pixels",
            *(f"work_{name}" for name in FAMILIES),
        )

    def _sizes(
        self, genotypes: Genotypes
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Depth, width and pixels as shares of the full size ``(N,)`` each."""
        most = max(map(len, FAMILIES.values()))
        table = np.array([[*pairs, *[(0, 0)] * (most - len(pairs))] for pairs in FAMILIES.values()]) / 100.0
        family = genotypes[:, 0].astype(np.int64)
        scale = genotypes[np.arange(len(genotypes)), 1 + family].astype(np.int64)
        pixels = (np.array(RESOLUTIONS)[genotypes[:, -1]] / _FULL) ** 2
        return table[family, scale, 0], table[family, scale, 1], pixels


def detector(family: str, depth: int, width: int, resolution: int) -> dict[str, Choice]:
    """The config of a detector; depth and width in percent."""
    return {"family": family, f"scale_{family}": f"d{depth}w{width}", "resolution": resolution}
