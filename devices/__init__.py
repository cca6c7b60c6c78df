"""Where models run: runner adapters and the measurement protocol."""

from .base import Device
from .protocol import Protocol

__all__ = ["Device", "Protocol"]
