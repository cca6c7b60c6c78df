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
        count = rng.binomial(n * d, rate)
        cells = rng.integers(0, n * d, size=count)
        flat = result.reshape(-1)
        cardinality = self.cardinalities[cells % d]
        step = 1 + (rng.random(count, dtype=np.float32) * (cardinality - 1)).astype(np.int64)
        flat[cells] = ((genotypes.reshape(-1)[cells] + np.minimum(step, cardinality - 1)) % cardinality).astype(
            GENE_DTYPE
        )
        return result

    def crossover(self, mothers: Genotypes, fathers: Genotypes, rng: np.random.Generator) -> Genotypes:
        """Uniform crossover: each gene from either parent with equal probability."""
        if mothers.shape != fathers.shape:
            raise SpaceError(
                "parents differ in shape", field="fathers", value=fathers.shape, allowed=str(mothers.shape)
            )
        n, d = mothers.shape
        bits = np.unpackbits(np.frombuffer(rng.bytes((n * d + 7) // 8), dtype=np.uint8), count=n * d)
        return np.where(bits.reshape(n, d).view(bool), mothers, fathers)

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

        Multiply-shift hashing with fixed odd 64-bit multipliers; collisions are as rare as for
        random numbers: about n^2 / 2^65.
        """
        halves = np.random.default_rng(0x6E0).integers(1, 2**63, size=genotypes.shape[1], dtype=np.uint64)
        multipliers: npt.NDArray[np.uint64] = np.asarray(halves) * np.uint64(2) + np.uint64(1)
        result = np.zeros(len(genotypes), dtype=np.uint64)
        for gene in range(genotypes.shape[1]):
            result += genotypes[:, gene].astype(np.uint64) * multipliers[gene]
        result ^= result >> np.uint64(29)
        result *= np.uint64(0xBF58476D1CE4E5B9)
        return result ^ (result >> np.uint64(32))

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
