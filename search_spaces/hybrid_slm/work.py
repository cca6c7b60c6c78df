"""What operators cost a decode step, for all sizes that a space offers: look-up tables, indexed by choices.

Shapes: K kinds of operators, the feed-forward last; then one axis for each of :data:`AXES`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .options import SPARE_POSITIONS, Options, ffn_width
from .sizes import MixerSizes, Work

FloatArray = npt.NDArray[np.float64]

AXES = ("width", "head_size", "kv_heads", "window", "ffn_ratio", "meta_tokens")
"""Decisions on which an operator's work depends."""
WORK = ("parameters", "macs", "state", "traffic")
"""Last axis: parameters, multiply-accumulates, elements of the state, and of it what a step reads and writes."""

_PROBED = (7, 5000)


def work_table(options: Options, mixers: Sequence[str], context: int, max_length: int) -> FloatArray:
    """Work of one operator ``(K, *AXES, 4)`` for the token after ``context`` others and the meta tokens.

    Zero where heads of keys do not divide the heads, which no network of the space has.
    """
    from .ffn import SwiGLU
    from .mixers import mixer_class

    choices = options.choices()
    axes = [choices[name] for name in AXES]
    table = np.zeros((len(mixers) + 1, *map(len, axes), len(WORK)))
    for cell, values in zip(
        itertools.product(*(range(len(axis)) for axis in axes)), itertools.product(*axes), strict=True
    ):
        of = dict(zip(AXES, values, strict=True))
        width, head_size, kv_heads, meta = (int(of[n]) for n in ("width", "head_size", "kv_heads", "meta_tokens"))
        table[(len(mixers), *cell)] = _row(SwiGLU.work(width, ffn_width(width, float(of["ffn_ratio"]))))
        heads = width // head_size
        if heads % kv_heads:
            continue
        length = max_length + meta + SPARE_POSITIONS
        sizes = MixerSizes(width, heads, kv_heads, head_size, int(of["window"]), length)
        for kind, mixer in enumerate(mixers):
            table[(kind, *cell)] = _row(mixer_class(mixer).step_work(sizes, context + meta))
    return table


def reads(kind: str, decision: str) -> bool:
    """Whether a mixer depends on ``kv_heads`` or ``window``, by what it says of its cost and state at two values."""
    from .mixers import mixer_class

    mixer = mixer_class(kind)
    values = {"kv_heads": (1, 4), "window": (8, 32)}[decision]
    said = []
    for value in values:
        sizes = MixerSizes(**{**_PROBE, decision: value})
        pasts = [
            (mixer.step_work(sizes, n), mixer.prefill_work(sizes, n), mixer.state_specs(sizes, 1, n)) for n in _PROBED
        ]
        said.append(pasts)
    return said[0] != said[1]


_PROBE = {"width": 64, "heads": 4, "kv_heads": 4, "head_size": 16, "window": 32, "max_length": 8192}


def _row(work: Work) -> tuple[float, ...]:
    return (work.parameters, work.macs, work.state_elements, work.state_traffic)
