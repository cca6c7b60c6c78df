"""Token mixers, one file each: whatever module of this folder defines a :class:`Mixer` can be named in a space."""

from __future__ import annotations

from .base import Mixer, State, StateSpec
from .catalog import mixer_class, mixer_kinds

__all__ = ["Mixer", "State", "StateSpec", "mixer_class", "mixer_kinds"]
