"""Multi-head latent attention that makes the keys and values of all tokens again at every step.

The other schedule of :mod:`.mla`: far more arithmetic per cached token, in one large product in place of several small
ones, and no more than a prompt needs anyway. Which is faster on a device is for its latency table to say.
"""

from __future__ import annotations

from typing import ClassVar

from .mla import LatentAttention


class RecomputingLatentAttention(LatentAttention):
    """:class:`LatentAttention` with the same parameters and the same answers."""

    kind: ClassVar[str] = "mla_recompute"
    absorbs: ClassVar[bool] = False
