"""A mixer that begins with another one's projections, as linear mixers may begin with attention's.

After Wang et al. (The Mamba in the Llama, 2408.15237), who reuse queries, keys, values and the output layer.

Shapes: K heads of keys, D features of a head, C width.
"""

from __future__ import annotations

import torch

from .mixers import Mixer

SHARED = ("keys", "values")
"""Projections whose heads several queries may share."""


@torch.no_grad()
def take_projections(mixer: Mixer, source: Mixer) -> tuple[str, ...]:
    """Copies into ``mixer`` what both have: queries, keys, values and the output layer, see :meth:`Mixer.projections`.

    Heads of keys and values are repeated where ``mixer`` has more of them, and means of neighbours taken (Ainslie et
    al., 2305.13245) where it has fewer. What does not fit stays as it was initialised.

    Returns:
        Names of the projections that were copied.
    """
    if mixer.sizes.head_size != source.sizes.head_size:
        return ()
    taken, given = [], source.projections()
    for name, target in mixer.projections().items():
        rows = given.get(name)
        if rows is not None and name in SHARED:
            rows = _with_heads(rows, target.shape[0], source.sizes.head_size)
        if rows is not None and rows.shape == target.shape:
            target.copy_(rows)
            taken.append(name)
    return tuple(taken)


def _with_heads(rows: torch.Tensor, wanted: int, head_size: int) -> torch.Tensor | None:
    """Rows ``(K D, C)`` as ``(wanted, C)``: heads repeated, or means of neighbours; None if neither fits."""
    count = rows.shape[0]
    heads = rows.unflatten(0, (-1, head_size))
    if wanted % count == 0:
        repeated: torch.Tensor = heads.repeat_interleave(wanted // count, dim=0)
        return repeated.flatten(0, 1)
    if count % wanted == 0 and wanted % head_size == 0:
        means: torch.Tensor = heads.unflatten(0, (-1, count // wanted)).mean(dim=1)
        return means.flatten(0, 1)
    return None
