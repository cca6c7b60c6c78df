"""Transformers that write sequences, with every width a decision (HAT, 2005.14187)."""

from .decoder_only import HATDecoderSpace
from .published import published_features
from .space import HATSpace, TransformerSpace

__all__ = ["HATDecoderSpace", "HATSpace", "TransformerSpace", "published_features"]
