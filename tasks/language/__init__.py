"""Language modelling on text files."""

from __future__ import annotations
