"""Vectorised algebra on genotypes: integer arrays whose rows are architectures.

Shapes: N architectures, D decisions. Genes are int8 choice indices. No Python loop runs over
architectures, only over decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError
from .decision import Choice, Decision

Genotypes: TypeAlias = npt.NDArray[np.int8]
GENE_DTYPE = np.int8

HASH_CHUNK = 4096
_HASH_START = np.uint64(0x9E3779B97F4A7C15)
_HASH_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_HASH_FINAL = np.uint64(0x94D049BB133111EB)

_BYTE_MASKS: npt.NDArray[np.uint64] = (
    -np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.int8)
).view(np.uint64)[:, 0]
"""For each byte, eight bytes that are all ones where its bits are one."""

MAX_SPARSE_RATE = 0.25


class GenotypeAlgebra:
    """What every space can do with populations, compiled once from its decisions."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = tuple(decisions)
        self.index = {d.name: i for i, d in enumerate(self.decisions)}
        if len(self.index) != len(self.decisions):
            raise SpaceError("decision names repeat", field="decisions", value=[d.name for d in self.decisions])
        self.cardinalities = np.array([len(d.choices) for d in self.decisions], dtype=np.int64)
        self._conditions = {i: self._compile(i) for i, d in enumerate(self.decisions) if d.active_when}
        self._lookup = [{(type(c), c): i for i, c in enumerate(d.choices)} for d in self.decisions]

    def _compile(self, gene: int) -> list[tuple[int, npt.NDArray[np.bool_]]]:
        conditions = []
        for parent, allowed in self.decisions[gene].active_when.items():
            if self.index.get(parent, gene) >= gene:
                raise SpaceError(
                    "active_when must name an earlier decision", field=self.decisions[gene].name, value=parent
                )
            choices = self.decisions[self.index[parent]].choices
            unknown = set(allowed) - set(choices)
            if unknown:
                raise SpaceError(
                    "active_when names unknown choices",
                    field=self.decisions[gene].name,
                    value=sorted(unknown, key=str),
                    allowed=choices,
                )
            conditions.append((self.index[parent], np.array([c in allowed for c in choices])))
        return conditions

    def active(self, genotypes: Genotypes) -> npt.NDArray[np.bool_]:
        """Which genes matter: ``(N, D)``."""
        active = np.ones(genotypes.shape, dtype=bool)
        for gene, conditions in self._conditions.items():
            for parent, allowed in conditions:
                active[:, gene] &= allowed[genotypes[:, parent]] & active[:, parent]
        return active

    def canonical(self, genotypes: Genotypes) -> Genotypes:
        """A copy with inactive genes set to 0: one row for one architecture."""
        result = genotypes.copy()
        inactive: dict[int, npt.NDArray[np.bool_]] = {}
        for gene, conditions in self._conditions.items():
            off = np.zeros(len(result), dtype=bool)
            for parent, allowed in conditions:
                off |= ~allowed[result[:, parent]]
                if parent in inactive:
                    off |= inactive[parent]
            result[off, gene] = 0
            inactive[gene] = off
        return result

    def sample(self, n: int, rng: np.random.Generator) -> Genotypes:
        """``(n, D)`` uniform over choices of each gene, not yet canonical."""
        draws = rng.random((n, len(self.decisions)), dtype=np.float32)
        return (draws * self.cardinalities.astype(np.float32)).astype(GENE_DTYPE)

    def mutate(self, genotypes: Genotypes, rng: np.random.Generator, rate: float) -> Genotypes:
        """Moves each gene to another choice with probability ``rate``; not yet canonical."""
        n, d = genotypes.shape
        result = genotypes.copy()
        cells = _bernoulli_cells(n * d, rate, rng)
        cardinality = self.cardinalities[cells % d]
        step = 1 + (rng.random(len(cells), dtype=np.float32) * (cardinality - 1)).astype(np.int64)
        flat = result.reshape(-1)
        moved = flat[cells] + np.minimum(step, cardinality - 1)
        flat[cells] = np.where(moved >= cardinality, moved - cardinality, moved)
        return result

    def crossover(self, mothers: Genotypes, fathers: Genotypes, rng: np.random.Generator) -> Genotypes:
        """Uniform crossover: each gene from either parent with equal probability."""
        if mothers.shape != fathers.shape:
            raise SpaceError(
                "parents differ in shape", field="fathers", value=fathers.shape, allowed=str(mothers.shape)
            )
        # Each random byte becomes eight whole-byte masks by one look-up; father ^ (mother ^ father) & mask then
        # chooses without a branch.
        words = _BYTE_MASKS[np.frombuffer(rng.bytes((mothers.size + 7) // 8), dtype=np.uint8)]
        children: Genotypes = np.bitwise_xor(mothers, fathers)
        children &= words.view(GENE_DTYPE)[: mothers.size].reshape(mothers.shape)
        children ^= fathers
        return children

    def keys(self, genotypes: Genotypes) -> list[str]:
        """Stable text keys of canonical rows, for ledger and store: indices joined by dots."""
        return [".".join(map(str, row)) for row in genotypes.tolist()]

    def from_key(self, key: str) -> Genotypes:
        """The ``(D,)`` row behind a key."""
        try:
            row = np.array([int(gene) for gene in key.split(".")], dtype=np.int64)
        except ValueError as error:
            raise SpaceError(
                "not an architecture key", field="key", value=key, allowed="choice indices joined by dots"
            ) from error
        valid: Genotypes = self.validate(row[None])[0]
        return valid

    def hashes(self, genotypes: Genotypes) -> npt.NDArray[np.uint64]:
        """64-bit hashes of rows ``(N,)``, for removing duplicates in large populations.

        Eight genes make a word, and each word is mixed into the hash by a multiplication with an
        odd constant and a shift, which lose nothing. Collisions are as rare as for random numbers:
        about n^2 / 2^65. Not for storage: constants may change between versions.
        """
        n, d = genotypes.shape
        result = np.empty(n, dtype=np.uint64)
        for start in range(0, n, HASH_CHUNK):
            rows = genotypes[start : start + HASH_CHUNK]
            padded = np.zeros((len(rows), -(-d // 8) * 8), dtype=GENE_DTYPE)
            padded[:, :d] = rows
            words = np.ascontiguousarray(padded.view(np.uint64).T)
            mixed = np.full(len(rows), _HASH_START, dtype=np.uint64)
            for word in words:
                mixed ^= word
                mixed *= _HASH_FACTOR
                mixed ^= mixed >> np.uint64(32)
            mixed *= _HASH_FINAL
            mixed ^= mixed >> np.uint64(29)
            result[start : start + HASH_CHUNK] = mixed
        return result

    def validate(self, genotypes: npt.NDArray[Any]) -> Genotypes:
        """``genotypes`` as int8 ``(N, D)``.

        Raises:
            SpaceError: If the shape is wrong or a gene is out of range.
        """
        array = np.asarray(genotypes)
        if array.ndim != 2 or array.shape[1] != len(self.decisions) or not np.issubdtype(array.dtype, np.integer):
            raise SpaceError(
                "not a population of this space",
                field="genotypes",
                value=f"{array.dtype}{array.shape}",
                allowed=f"integers of shape (n, {len(self.decisions)})",
            )
        bad = (array < 0) | (array >= self.cardinalities)
        if bad.any():
            row, gene = np.argwhere(bad)[0]
            raise SpaceError(
                "choice index out of range",
                field=self.decisions[gene].name,
                value=int(array[row, gene]),
                allowed=f"0 to {self.cardinalities[gene] - 1}",
            )
        return array.astype(GENE_DTYPE)

    def config(self, row: Genotypes) -> dict[str, Choice]:
        """Active choices of one row by decision name."""
        active = self.active(row[None])[0]
        return {d.name: d.choices[row[i]] for i, d in enumerate(self.decisions) if active[i]}

    def genotype(self, config: Mapping[str, Any]) -> Genotypes:
        """The ``(D,)`` row of a config; decisions left out must be inactive.

        Raises:
            SpaceError: Naming unknown, missing or inconsistent decisions.
        """
        unknown = sorted(set(config) - set(self.index))
        if unknown:
            raise SpaceError("unknown decisions", field="config", value=unknown, allowed=self.index)
        row = np.zeros(len(self.decisions), dtype=GENE_DTYPE)
        for name, value in config.items():
            row[self.index[name]] = self._choice_index(name, value)
        active = self.active(row[None])[0]
        missing = [d.name for i, d in enumerate(self.decisions) if active[i] and d.name not in config]
        if missing:
            raise SpaceError("decisions are missing", field="config", value=missing)
        inactive = [d.name for i, d in enumerate(self.decisions) if not active[i] and d.name in config]
        if inactive:
            raise SpaceError("decisions are given but inactive under the others", field="config", value=inactive)
        return row

    def _choice_index(self, name: str, value: Any) -> int:
        gene = self.index[name]
        found = self._lookup[gene].get((type(value), value))
        if found is None and isinstance(value, (int, float)) and not isinstance(value, bool):
            # JSON and YAML do not tell 1 from 1.0.
            found = next(
                (
                    i
                    for i, c in enumerate(self.decisions[gene].choices)
                    if not isinstance(c, (bool, str)) and c == value
                ),
                None,
            )
        if found is None:
            raise SpaceError("no such choice", field=name, value=value, allowed=self.decisions[gene].choices)
        return found


def _bernoulli_cells(n: int, rate: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Which of ``n`` cells are hit, each independently with probability ``rate``, in order.

    At low rates the gaps between hits are drawn (they are geometric), which costs as much as there
    are hits rather than cells.
    """
    if rate <= 0.0 or n == 0:
        return np.zeros(0, dtype=np.int64)
    if rate > MAX_SPARSE_RATE:
        return np.flatnonzero(rng.random(n, dtype=np.float32) < rate)
    expected = n * rate
    draws = int(expected + 6 * np.sqrt(expected) + 16)
    cells = np.zeros(0, dtype=np.int64)
    last = -1
    while last < n:
        gaps = 1 + np.floor(rng.standard_exponential(draws) / -np.log1p(-rate)).astype(np.int64)
        cells = np.concatenate([cells, last + np.cumsum(gaps)])
        last = int(cells[-1])
    return cells[: int(np.searchsorted(cells, n))]
