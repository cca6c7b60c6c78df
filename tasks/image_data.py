"""Labelled images in memory, and the contract of what loads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import DataError

LabelArray = npt.NDArray[np.int64]
ImageArray = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageData:
    """Every example of a data set, before duplicates are removed and splits are made.

    Args:
        images: Raw pixels ``(N, C, H, W)``, uint8 or float32.
        labels: Class indices ``(N,)``.
        names: Class names; ``labels`` index into them.
        source: Where the data come from, for provenance.
        scale: Raw pixel times ``scale`` lies in about 0..1.
        resized: (height, width) that the loader resized to, or None.

    Raises:
        DataError: If the arrays do not describe at least two classes of equally shaped images.
    """

    images: ImageArray
    labels: LabelArray
    names: tuple[str, ...]
    source: str
    scale: float = 1.0
    resized: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self._check_images()
        self._check_labels()

    def _check_images(self) -> None:
        images = self.images
        if images.ndim != 4 or 0 in images.shape:
            raise DataError(
                f"{self.source}: images have the wrong shape",
                field="images.shape",
                value=images.shape,
                allowed="(N, C, H, W)",
            )
        if images.dtype not in (np.uint8, np.float32):
            raise DataError(
                f"{self.source}: pixels have the wrong type",
                field="images.dtype",
                value=str(images.dtype),
                allowed="uint8, float32",
            )
        if images.dtype == np.float32 and not np.isfinite(images).all():
            bad = int(np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))[0])
            raise DataError(f"{self.source}: image {bad} holds NaN or infinity")

    def _check_labels(self) -> None:
        labels = self.labels
        if labels.shape != (len(self.images),):
            raise DataError(
                f"{self.source}: one label per image is needed",
                field="labels.shape",
                value=labels.shape,
                allowed=f"({len(self.images)},)",
            )
        if len(self.names) < 2:
            raise DataError(
                f"{self.source}: nothing to tell apart", field="classes", value=self.names, allowed="at least 2"
            )
        if labels.min() < 0 or labels.max() >= len(self.names):
            raise DataError(
                f"{self.source}: labels do not match the class names",
                field="labels",
                value=(int(labels.min()), int(labels.max())),
                allowed=f"0 to {len(self.names) - 1}",
            )

    def content_hash(self) -> str:
        """SHA-256 over pixels, labels and names: equal exactly if the data are equal."""
        digest = sha256()
        digest.update(repr((self.images.shape, str(self.images.dtype), self.names, self.scale)).encode())
        digest.update(np.ascontiguousarray(self.images).tobytes())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()


class ImageSource(ABC):
    """What loads :class:`ImageData`: a frozen dataclass of JSON arguments, named by ``_target_``.

    Making one is free; ``load`` reads.
    """

    name: ClassVar[str]
    """Short name, used in study names."""

    @abstractmethod
    def load(self) -> ImageData:
        """The whole data set.

        Raises:
            DataError: If it is missing or malformed.
            DependencyError: If a package is missing; the hint installs it.
        """
