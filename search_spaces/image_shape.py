"""Checks and rules that image spaces share."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import SpaceError


def checked_image_shape(input_shape: Sequence[int], *, smallest: int) -> tuple[int, tuple[int, int]]:
    """``(channels, (height, width))`` of a shape.

    Raises:
        SpaceError: If it is not three positive integers, or an edge is shorter than ``smallest``.
    """
    try:
        shape = tuple(input_shape)
    except TypeError:
        shape = ()
    if len(shape) != 3 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):
        raise SpaceError(
            "not an image shape", field="input_shape", value=input_shape, allowed="[channels, height, width]"
        )
    if min(shape[1:]) < smallest:
        raise SpaceError(
            "image too small for this space",
            field="input_shape",
            value=input_shape,
            allowed=f"height and width of {smallest} pixels or more",
        )
    return shape[0], (shape[1], shape[2])


def checked_classes(classes: int) -> int:
    """``classes`` itself.

    Raises:
        SpaceError: If it is not a positive integer.
    """
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise SpaceError("not a number of classes", field="classes", value=classes, allowed="an integer of 1 or more")
    return classes


def checked_width(width: float) -> float:
    """``width`` itself: what multiplies all filters.

    Raises:
        SpaceError: If it is not a number from 0.05 to 4.
    """
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0.05 <= width <= 4.0:
        raise SpaceError("out of range", field="width", value=width, allowed="0.05 to 4")
    return float(width)


def kept_strides(size: int, wanted: Sequence[int], smallest: int) -> list[int]:
    """The wanted strides, later ones dropped once they would make the map smaller than ``smallest``."""
    kept = []
    for stride in wanted:
        stride = stride if -(-size // stride) >= smallest else 1
        size = -(-size // stride)
        kept.append(stride)
    return kept
