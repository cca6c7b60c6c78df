"""Multi-head attention, plain and elastic.

Shapes: B sentences, T queries, S keys, C width, H heads, D features of a head.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from ...errors import SpaceError
from .linear import ElasticLinear
from .sizes import checked_size

Fixed = Literal["qkv_width", "head_width"]


class Attention(nn.Module):
    """Multi-head attention (1706.03762, Section 3.2) to the sequence itself or to another one.

    :meth:`forward` is :meth:`queries`, :meth:`keys_values` and :meth:`attend` in one; whoever decodes
    token by token calls them apart and keeps keys and values.

    Args:
        width: Features of the queries' sequence and of the result.
        heads: Number of heads; divides ``qkv_width``.
        qkv_width: Features of all heads together; None for ``width``.
        key_width: Features of the keys' sequence; None for ``width``.
        dropout: Probability with which an attention weight is dropped in training.
    """

    linear: type[nn.Linear] = nn.Linear

    def __init__(
        self,
        width: int,
        heads: int,
        qkv_width: int | None = None,
        key_width: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        qkv_width = width if qkv_width is None else qkv_width
        key_width = width if key_width is None else key_width
        if heads < 1 or qkv_width % heads:
            raise SpaceError(
                "does not divide qkv_width", field="heads", value=heads, allowed=f"divisors of {qkv_width}"
            )
        self.heads = heads
        self.dropout = dropout
        self.q = self.linear(width, qkv_width)
        self.k = self.linear(key_width, qkv_width)
        self.v = self.linear(key_width, qkv_width)
        self.out = self.linear(qkv_width, width)

    def queries(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, T, C)`` to queries ``(B, H, T, D)``."""
        return self._split(self.q(x))

    def keys_values(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B, S, C)`` to keys and values, each ``(B, H, S, D)``."""
        return self._split(self.k(x)), self._split(self.v(x))

    def attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        *,
        causal: bool = False,
        key_padding_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The result ``(B, T, C)`` for queries ``(B, H, T, D)``, keys and values ``(B, H, S, D)``.

        Args:
            queries: Of the last T positions, where ``causal``.
            keys: Of all S positions.
            values: Of all S positions.
            causal: Whether the last query sees all keys, the one before it all but the last, and so on.
            key_padding_mask: ``(B, S)`` bool, true at keys that nobody sees. Each sentence has one that is seen.
        """
        steps, length = queries.shape[2], keys.shape[2]
        mask: torch.Tensor | None = None
        plainly_causal = causal and steps == length and key_padding_mask is None
        if causal and steps > 1 and not plainly_causal:
            mask = torch.ones(steps, length, dtype=torch.bool, device=queries.device).tril(length - steps)
        if key_padding_mask is not None:
            seen = ~key_padding_mask[:, None, None, :]
            mask = seen if mask is None else seen & mask
        mixed = functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=plainly_causal,
        )
        result: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor | None = None,
        *,
        causal: bool = False,
        key_padding_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``x`` ``(B, T, C)`` attends to ``memory`` ``(B, S, key_width)``, by default to itself; ``(B, T, C)``."""
        keys, values = self.keys_values(x if memory is None else memory)
        return self.attend(self.queries(x), keys, values, causal=causal, key_padding_mask=key_padding_mask)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        split: torch.Tensor = x.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return split


class ElasticAttention(Attention):
    """Attention whose width and number of heads can be made smaller.

    With ``fixed="qkv_width"``, all heads together always have ``qkv_width`` features, which the present
    heads split (HAT, 2005.14187, Section 3.1): fewer heads are larger ones. With ``fixed="head_width"``
    each head keeps its ``qkv_width / heads`` features, and fewer heads are the first ones.

    Args:
        width: Largest width.
        heads: Largest number of heads.
        qkv_width: Features of all heads together; None for ``width``.
        key_width: Largest width of the keys' sequence; None for ``width``.
        fixed: What stays when the number of heads changes.
        dropout: Probability with which an attention weight is dropped in training.
    """

    linear = ElasticLinear
    q: ElasticLinear
    k: ElasticLinear
    v: ElasticLinear
    out: ElasticLinear

    def __init__(
        self,
        width: int,
        heads: int,
        qkv_width: int | None = None,
        key_width: int | None = None,
        fixed: Fixed = "qkv_width",
        dropout: float = 0.0,
    ) -> None:
        if fixed not in ("qkv_width", "head_width"):
            raise SpaceError("unknown", field="fixed", value=fixed, allowed=("qkv_width", "head_width"))
        super().__init__(width, heads, qkv_width, key_width, dropout)
        self.fixed = fixed
        self.largest_heads = heads
        self.self_attending = key_width is None

    def resize(self, width: int | None = None, heads: int | None = None, key_width: int | None = None) -> None:
        """Sets the sizes that are given. ``width`` sets ``key_width``, too, where the layer was made without one.

        Raises:
            SpaceError: If one is larger than the layer, or the heads cannot split the features.
        """
        if heads is not None:
            self._set_heads(checked_size("heads", heads, self.largest_heads))
        if width is not None:
            self.q.resize(in_features=width)
            self.out.resize(out_features=width)
            if key_width is None and self.self_attending:
                key_width = width
        if key_width is not None:
            self.k.resize(in_features=key_width)
            self.v.resize(in_features=key_width)

    def extract(self) -> Attention:
        """Plain attention of the present sizes, with copied weights."""
        width, features = self.q.active
        with torch.device("meta"):
            module = Attention(width, self.heads, features, self.k.active[0], self.dropout)
        module.q, module.k, module.v = self.q.extract(), self.k.extract(), self.v.extract()
        module.out = self.out.extract()
        return module.train(self.training)

    def _set_heads(self, heads: int) -> None:
        features = self.q.out_features
        if self.fixed == "head_width":
            features = features // self.largest_heads * heads
        elif features % heads:
            raise SpaceError(
                "cannot split qkv_width among these heads",
                field="heads",
                value=heads,
                allowed=f"divisors of {features}",
            )
        for layer in (self.q, self.k, self.v):
            layer.resize(out_features=features)
        self.out.resize(in_features=features)
        self.heads = heads
