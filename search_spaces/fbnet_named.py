"""Known networks of FBNet's space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import SpaceError
from .decision import Choice

NAMED: Mapping[str, str] = {
    # The networks that the authors released with 1812.03443 (Figure 4). One line a stage.
    "fbnet_c": """
        k3_e1
        k3_e6 skip  k3_e1 k3_e1
        k5_e6 k5_e3 k5_e6 k3_e6
        k5_e6 k5_e3 k5_e6 k5_e6
        k5_e6 k5_e6 k5_e6 k5_e3
        k5_e6 k5_e6 k5_e6 k5_e6
        k3_e6
    """,
    "fbnet_b": """
        k3_e1
        k3_e6 k5_e1 k3_e1 k3_e1
        k5_e6 k5_e3 k3_e6 k5_e6
        k5_e6 k5_e1 skip  k5_e3
        k5_e6 k3_e1 k5_e1 k5_e3
        k5_e6 k5_e1 k5_e6 k5_e6
        k3_e6
    """,
    "fbnet_a": """
        skip
        k3_e3 k3_e1 skip     skip
        k5_e6 k3_e3 k5_e1    k3_e3
        k5_e6 k5_e3 k5_e1_g2 k5_e6
        k3_e6 k5_e1_g2 k5_e1 k3_e1_g2
        k5_e6 k5_e6 k5_e3    k5_e6
        k5_e6
    """,
}


def named_configs(layers: Sequence[str], blocks: Sequence[str]) -> dict[str, dict[str, Choice]]:
    """Each named network as a config; then ``all_<block>`` for each block, the largest first.

    Raises:
        SpaceError: If a network does not have a block for each layer.
    """
    networks = {name: text.split() for name, text in NAMED.items()}
    networks |= {f"all_{block}": [block] * len(layers) for block in reversed([b for b in blocks if b != "skip"])}
    networks["all_skip"] = ["skip"] * len(layers)
    for name, chosen in networks.items():
        if len(chosen) != len(layers) or set(chosen) - set(blocks):
            raise SpaceError("not a network of this space", field="named", value=name)
    return {name: dict(zip(layers, chosen, strict=True)) for name, chosen in networks.items()}
