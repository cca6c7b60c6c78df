"""Elastic modules: one set of weights that serves all networks of a space."""

from .attention import Attention, ElasticAttention
from .conv import ElasticBatchNorm, ElasticConv2d, KernelSharing
from .depth import ElasticDepth
from .linear import ElasticEmbedding, ElasticLayerNorm, ElasticLinear
from .model import ElasticModel
from .sizes import Extractable
from .sorting import sort_channels

__all__ = [
    "Attention",
    "ElasticAttention",
    "ElasticBatchNorm",
    "ElasticConv2d",
    "ElasticDepth",
    "ElasticEmbedding",
    "ElasticLayerNorm",
    "ElasticLinear",
    "ElasticModel",
    "Extractable",
    "KernelSharing",
    "sort_channels",
]
