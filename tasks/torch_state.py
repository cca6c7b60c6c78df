"""Borrowing torch's process-wide state and giving it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..errors import ConfigError


def derived_seed(*parts: int) -> int:
    """A 63-bit seed from whole numbers, for example (seed, epoch); neighbours are unrelated.

    Raises:
        ConfigError: If a part is negative.
    """
    if min(parts) < 0:
        raise ConfigError("not a seed", field="seed", value=parts[0], allowed="integers from 0")
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's CPU generator under ``seed`` inside, as it was before outside."""
    import torch

    before = torch.get_rng_state()
    # Not torch.manual_seed: that would also reseed every accelerator, which nothing would undo.
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Torch's intra-op threads inside, as they were before outside; None changes nothing.

    Raises:
        ConfigError: If ``count`` is below 1.
    """
    if count is None:
        yield
        return
    if count < 1:
        raise ConfigError("not a number of threads", field="threads", value=count, allowed="integers from 1, or null")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
