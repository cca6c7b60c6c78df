"""Elastic linear layer, layer norm and embedding: the first features of one set of weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .sizes import checked_size, filled, front, set_fast


class ElasticLinear(nn.Linear):
    """A linear layer that uses its first inputs and outputs.

    ``in_features`` and ``out_features`` stay the largest sizes; :attr:`active` are the present ones.
    """

    active: tuple[int, int]
    """Present inputs and outputs."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.active = (in_features, out_features)

    def resize(self, in_features: int | None = None, out_features: int | None = None) -> None:
        """Sets the sizes that are given.

        Raises:
            SpaceError: If one is larger than the layer.
        """
        inputs, outputs = self.active
        if in_features is not None:
            inputs = checked_size("in_features", in_features, self.in_features)
        if out_features is not None:
            outputs = checked_size("out_features", out_features, self.out_features)
        set_fast(self, "active", (inputs, outputs))

    def sliced(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Views of the weight ``(out, in)`` and bias ``(out,)`` that are used."""
        inputs, outputs = self.active
        return front(self.weight, outputs, inputs), None if self.bias is None else front(self.bias, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to ``(..., out)``."""
        return functional.linear(x, *self.sliced())

    def extract(self) -> nn.Linear:
        """A plain linear layer of the present sizes, with copied weights."""
        weight, bias = self.sliced()
        module = nn.Linear(*self.active, bias=bias is not None, device="meta")
        return filled(module, self, weight=weight, bias=bias)


class ElasticLayerNorm(nn.LayerNorm):
    """Layer norm over the first features of the last dimension; the others do not exist for it."""

    active: int
    """Present features."""

    def __init__(self, features: int, eps: float = 1e-5) -> None:
        super().__init__(features, eps)
        self.active = features

    def resize(self, features: int) -> None:
        """Sets the number of features.

        Raises:
            SpaceError: If it is larger than the layer.
        """
        set_fast(self, "active", checked_size("features", features, self.normalized_shape[0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., features)`` to the same shape."""
        weight, bias = front(self.weight, self.active), front(self.bias, self.active)
        return functional.layer_norm(x, (self.active,), weight, bias, self.eps)

    def extract(self) -> nn.LayerNorm:
        """A plain layer norm of the present size, with copied weights."""
        weight, bias = front(self.weight, self.active), front(self.bias, self.active)
        return filled(nn.LayerNorm(self.active, self.eps, device="meta"), self, weight=weight, bias=bias)


class ElasticEmbedding(nn.Embedding):
    """An embedding that uses the first features of each row."""

    active: int
    """Present features."""

    def __init__(self, entries: int, features: int, padding_idx: int | None = None) -> None:
        super().__init__(entries, features, padding_idx)
        self.active = features

    def resize(self, features: int) -> None:
        """Sets the number of features.

        Raises:
            SpaceError: If it is larger than the layer.
        """
        set_fast(self, "active", checked_size("features", features, self.embedding_dim))

    def sliced(self) -> torch.Tensor:
        """A view of the weight ``(entries, features)`` that is used; also that of a tied output layer."""
        return self.weight.narrow(1, 0, self.active) if self.active < self.embedding_dim else self.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``(...)`` int64 to ``(..., features)``."""
        return functional.embedding(tokens, self.sliced(), self.padding_idx)

    def extract(self) -> nn.Embedding:
        """A plain embedding of the present size, with copied weights."""
        module = nn.Embedding(self.num_embeddings, self.active, self.padding_idx, device="meta")
        return filled(module, self, weight=self.sliced())
