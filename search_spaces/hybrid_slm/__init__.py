"""Decoder-only language models that mix attention with mixers of linear time (Nemotron-Flash, 2511.18890)."""

from __future__ import annotations
