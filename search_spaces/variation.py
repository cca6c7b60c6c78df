"""From parents to distinct children, hundreds of thousands at a time.

Shapes: P parents, N children, D decisions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError
from .algebra import GENE_DTYPE, Genotypes
from .base import SearchSpace
from .chunks import CHUNK, map_chunks

Hashes = npt.NDArray[np.uint64]


def offspring(
    space: SearchSpace,
    parents: Genotypes,
    n: int,
    rng: np.random.Generator,
    *,
    crossover_rate: float = 0.9,
    mutation_rate: float | None = None,
    tournament: int = 1,
    known: Hashes | None = None,
) -> Genotypes:
    """At most ``n`` distinct canonical children ``(N, D)``: select, cross over, mutate, make
    canonical, remove duplicates.

    Works in chunks on several threads; each chunk has a random stream of its own, so that the
    result depends on ``rng`` only, not on the number of threads.

    Args:
        space: Where the parents come from.
        parents: Canonical rows ``(P, D)``; in order of merit if ``tournament`` is above 1.
        n: Children to make, before duplicates are removed.
        rng: Of everything random.
        crossover_rate: Share of children with two parents.
        mutation_rate: See :meth:`SearchSpace.mutate`.
        tournament: Each parent is the best of this many random ones.
        known: Hashes of rows to leave out, see :meth:`GenotypeAlgebra.hashes`.

    Raises:
        SpaceError: If there are no parents, or a rate is not a probability.
    """
    if not len(parents):
        raise SpaceError("no parents", field="parents", value=0, allowed="at least 1")
    if not 0.0 <= crossover_rate <= 1.0:
        raise SpaceError("not a probability", field="crossover_rate", value=crossover_rate, allowed="0 to 1")
    children = np.empty((n, parents.shape[1]), dtype=GENE_DTYPE)
    hashes = np.empty(n, dtype=np.uint64)
    streams = rng.spawn(-(-n // CHUNK))

    def breed(rows: slice) -> None:
        stream, size = streams[rows.start // CHUNK], rows.stop - rows.start
        mothers = parents[_select(len(parents), size, tournament, stream)]
        if crossover_rate > 0.0:
            pairs = size if crossover_rate == 1.0 else int(stream.binomial(size, crossover_rate))
            fathers = parents[_select(len(parents), pairs, tournament, stream)]
            mothers[:pairs] = space.algebra.crossover(mothers[:pairs], fathers, stream)
        children[rows] = space.mutate(mothers, stream, mutation_rate)
        hashes[rows] = space.algebra.hashes(children[rows])

    map_chunks(breed, n)
    first = first_occurrences(hashes)
    if known is not None and len(known):
        first = first[~np.isin(hashes[first], known)]
    return children if len(first) == n else children[first]


def distinct(space: SearchSpace, genotypes: Genotypes, known: Hashes | None = None) -> Genotypes:
    """First occurrences among canonical rows ``(N, D)``, in order, without those whose hash is
    ``known``."""
    hashes = space.algebra.hashes(genotypes)
    first = first_occurrences(hashes)
    if known is not None and len(known):
        first = first[~np.isin(hashes[first], known)]
    return genotypes[first]


def first_occurrences(hashes: Hashes) -> npt.NDArray[np.int64]:
    """Positions, in order, at which a hash appears first.

    Sorting plain numbers is many times faster than an indirect sort, so the position replaces the
    low bits of the hash; neighbours that then look alike are compared in full.
    """
    n = len(hashes)
    low = np.uint64((1 << max(n - 1, 1).bit_length()) - 1)
    keys = hashes & ~low
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort()
    alike = np.flatnonzero((keys[1:] ^ keys[:-1]) <= low)
    if not len(alike):
        return np.arange(n)
    repeats = (keys[alike + 1] & low).astype(np.int64)
    before = (keys[alike] & low).astype(np.int64)
    keep = np.ones(n, dtype=bool)
    keep[repeats[hashes[repeats] == hashes[before]]] = False
    return np.flatnonzero(keep)


def _select(size: int, n: int, tournament: int, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Winners ``(n,)`` of tournaments among ``size`` members in order of merit."""
    drawn = rng.integers(0, size, size=(max(tournament, 1), n), dtype=np.int32)
    winners: npt.NDArray[np.int32] = drawn.min(axis=0)
    return winners
