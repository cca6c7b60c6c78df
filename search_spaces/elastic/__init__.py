"""Elastic modules: one set of weights that serves all networks of a space."""

from .attention import Attention, ElasticAttention
from .depth import ElasticDepth
from .linear import ElasticEmbedding, ElasticLayerNorm, ElasticLinear
from .model import ElasticModel
from .sizes import Extractable

__all__ = [
    "Attention",
    "ElasticAttention",
    "ElasticDepth",
    "ElasticEmbedding",
    "ElasticLayerNorm",
    "ElasticLinear",
    "ElasticModel",
    "Extractable",
]
