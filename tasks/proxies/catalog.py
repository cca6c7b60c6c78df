"""Lists of proxies."""

from __future__ import annotations

from .base import Proxy


def all_proxies() -> list[Proxy]:
    """Every proxy that comes with Gnomon, with its defaults."""
    from .az_nas import Expressivity, Progressivity, Trainability
    from .fisher import Fisher
    from .gradients import GradNorm, Grasp, Plain, Snip
    from .jacobian import JacobCov
    from .relu_codes import NWOT, NWOTPreactivation
    from .sizes import L2Norm, MACs, Parameters
    from .synflow import SynFlow
    from .zico import ZiCo

    return [
        MACs(), Parameters(), L2Norm(), GradNorm(), Snip(), Plain(), Grasp(), Fisher(), SynFlow(), JacobCov(), NWOT(),
        NWOTPreactivation(), ZiCo(), Expressivity(), Progressivity(), Trainability(),
    ]  # fmt: skip


def az_nas() -> list[Proxy]:
    """The four that AZ-NAS (2403.19232) combines by rank."""
    from .az_nas import Expressivity, Progressivity, Trainability
    from .sizes import MACs

    return [Expressivity(), Progressivity(), Trainability(), MACs()]


def default_proxies() -> list[Proxy]:
    """Those of ``conf/quality/proxy.yaml``."""
    from .relu_codes import NWOT
    from .sizes import MACs
    from .synflow import SynFlow

    return [NWOT(), SynFlow(), MACs()]
