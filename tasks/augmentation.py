"""Cheap random augmentation of image batches, vectorised over the batch.

Shapes: N images, B in a batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch


class Augmentation:
    """Random shifts (the rim is filled with raw zeros) and left-right mirroring.

    Args:
        images: Raw train images ``(N, C, H, W)``.
        shift: Largest shift in pixels.
        flip: Whether to mirror half of the images.
    """

    def __init__(self, images: torch.Tensor, shift: int, flip: bool) -> None:
        height, width = images.shape[2:]
        padded = torch.nn.functional.pad(images, (shift,) * 4) if shift else images
        # A view: every shifted copy of every image, (N, C, 2*shift+1, 2*shift+1, H, W), without memory.
        self._windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        self._shift = shift
        self._flip = flip

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A raw batch ``(B, C, H, W)``, new memory."""
        n, offsets = len(indices), 2 * self._shift + 1
        if self._shift:
            down, right = torch.randint(offsets, (2, n), generator=generator)
            images = self._windows[indices, :, down, right]
        else:
            images = self._windows[indices, :, 0, 0]
        if self._flip:
            mirrored = torch.rand(n, generator=generator) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images
