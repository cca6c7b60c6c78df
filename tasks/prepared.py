"""A data set ready for training: duplicates out, splits made, statistics of train taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .image_data import ImageData, LabelArray
from .splits import Splits, count_label_conflicts, example_keys, first_occurrences, stratified_split

if TYPE_CHECKING:
    import torch

MIN_STD = 1e-3
"""A constant channel is left as it is instead of being blown up."""


@dataclass(frozen=True)
class PreparedImages:
    """Distinct examples with their splits and normalisation.

    Args:
        data: Distinct examples.
        keys: Hash of each example's raw bytes.
        splits: Which example belongs where.
        mean, std: By channel ``(C,)``, of scaled pixels of the train split only.
        duplicates_removed: Copies that were left out.
        label_conflicts: Examples whose copies disagreed on the label (the first copy stays).
    """

    data: ImageData
    keys: tuple[str, ...]
    splits: Splits
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    duplicates_removed: int
    label_conflicts: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one example."""
        channels, height, width = self.data.images.shape[1:]
        return channels, height, width

    def labels(self, split: str) -> LabelArray:
        return self.data.labels[self.splits[split]]

    def raw(self, split: str) -> npt.NDArray[Any]:
        """Raw pixels ``(n, C, H, W)`` of a split."""
        return self.data.images[self.splits[split]]

    def normalise(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Model inputs of raw images ``(B, C, H, W)``."""
        import torch

        return self.normalise_batch(torch.from_numpy(raw)).numpy()

    def normalised(self, split: str) -> npt.NDArray[np.float32]:
        """Model inputs ``(n, C, H, W)`` of a split."""
        return self.normalise(self.raw(split))

    def examples(self, n: int) -> npt.NDArray[np.float32]:
        """Up to ``n`` model inputs of the train split, drawn once and for all."""
        train = self.splits.train
        chosen = np.random.default_rng(0).permutation(len(train))[:n]
        return self.normalise(self.data.images[train[chosen]])

    def normalise_batch(self, raw: torch.Tensor) -> torch.Tensor:
        """The same for a tensor. Done batch by batch, so that data stay small in memory."""
        import torch

        shape = (1, -1, 1, 1)
        mean, std = torch.from_numpy(self.mean).view(shape), torch.from_numpy(self.std).view(shape)
        return raw.to(torch.float32).mul(self.data.scale).sub_(mean).div_(std)

    def preprocessing(self) -> dict[str, Any]:
        """From a raw image to the model's input, as JSON."""
        channels, height, width = self.shape
        return {
            "layout": "NCHW",
            "channels": {1: "grey", 3: "rgb"}.get(channels, str(channels)),
            "size": [height, width],
            "resize": list(self.data.resized) if self.data.resized else None,
            "raw_dtype": str(self.data.images.dtype),
            "scale": float(self.data.scale),
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
            "formula": "(raw * scale - mean) / std",
        }


def prepare(data: ImageData, fractions: Sequence[float], seed: int) -> PreparedImages:
    """Removes duplicates, splits, and takes mean and standard deviation of the train split.

    Raises:
        ConfigError: If fractions or seed are not valid.
        DataError: If a class has fewer than three distinct examples.
    """
    keys = example_keys(data.images)
    kept = first_occurrences(keys)
    distinct = ImageData(data.images[kept], data.labels[kept], data.names, data.source, data.scale, data.resized)
    splits = stratified_split(distinct.labels, fractions, seed=seed, names=data.names)
    mean, std = _channel_statistics(distinct.images[splits.train], data.scale)
    return PreparedImages(
        data=distinct,
        keys=tuple(keys[i] for i in kept),
        splits=splits,
        mean=mean,
        std=std,
        duplicates_removed=len(keys) - len(kept),
        label_conflicts=count_label_conflicts(keys, data.labels),
    )


def _channel_statistics(
    images: npt.NDArray[Any], scale: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    mean = images.mean(axis=(0, 2, 3), dtype=np.float64) * scale
    std = images.std(axis=(0, 2, 3), dtype=np.float64) * scale
    return mean.astype(np.float32), np.where(std < MIN_STD, 1.0, std).astype(np.float32)
