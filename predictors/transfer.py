"""Linear latency models that share what other settings taught: hierarchical Bayes in closed form.

Each source setting has a weight vector in the features of the space; their mean and their spread
are the prior of a new setting's weights. A few measurements then decide how much of which direction
in which sources differ this setting has, which execution of a network it shows, how far it departs
from all sources, and how noisy it is.

Shapes: N architectures, F features, S settings, E = F + 1 features with a constant last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from .evidence import Caution, Evidence, PriorGrid, weigh
from .features import Basis, FeatureBasis
from .linear_model import LinearParameters, factorise

FloatArray = npt.NDArray[np.float64]

Grid: TypeAlias = tuple[Mapping[str, tuple[float, ...]], ...]
"""Deviations of blocks that change together, for each group of blocks."""

NOISES = (0.001, 0.003, 0.01, 0.02, 0.04, 0.08, 0.16)
"""Relative deviations of a measurement from a linear model that the evidence weighs."""

NOISE_FLOOR = 0.1
"""Share of the mean latency below which noise is no longer proportional to latency."""

FLOOR_SHARE = 0.05
"""No mean is predicted below this share of the smallest measured latency."""

SOURCE_DEVIATIONS = {"work": 0.3, "executions": 0.5, "tied": 0.3, "choices": 0.2}
"""Prior deviations of a block's share of latency when a source's weights are fitted."""

SOURCE_NOISE = 0.05

OWN_DEVIATIONS: Grid = (
    {"work": (0.0, 0.05), "tied": (0.0, 0.05)},
    {"executions": (0.0, 0.2)},
    {"choices": (0.0, 0.05, 0.15)},
)
"""Of a new setting from everything that sources span; blocks of one entry change together."""

OWN_WORK_DEVIATIONS: Grid = ({"work": (0.0, 0.05, 0.15, 0.4)},)
"""The same where features are work alone, which then has to take up what choices would."""

ALONE_DEVIATIONS: Grid = (
    {"work": (0.03, 0.1, 0.3, 0.8)},
    {"executions": (0.1, 0.5)},
    {"tied": (0.0, 0.3)},
    {"choices": (0.0, 0.1, 0.3)},
)
"""The same where there are no sources."""

SPREADS = (0.3, 1.0, 2.0)
"""Factors on the sources' own spread."""

NOISE_SPREAD = 2.5
"""Deviation, in log units, of a setting's noise from that of a source."""

NORMAL_90 = 1.6449
"""90 % quantile of the absolute value of a standard normal variable."""

CAUTION = Caution(prior_measurements=1.0, estimated=8)
"""Chosen with ``NOISE_SPREAD`` on development devices only (HELP's validation devices; its training devices
left out with their card, or with their family): of those whose 90 % intervals hold 88 to 92 % there with ten
measurements, the lowest interval score at 10, 5 and 3 (docs/predictors.md)."""

BIAS_DEVIATION = 0.1
"""Prior deviation of the constant."""

ALONE_BIAS_DEVIATION = 0.5
"""The same without sources: references are chosen to differ, so their mean is no average network."""

DESIGN_NOISE = 0.05
DESIGN_DEVIATIONS = dict.fromkeys(("work", "executions", "tied", "choices"), 0.15)
"""Deviation from all sources that the design of references assumes, for each block."""

ALONE_DESIGN_DEVIATIONS = {"work": 0.2, "executions": 0.3, "tied": 0.4, "choices": 0.1}
"""The same where there are no sources."""


@dataclass(frozen=True)
class Sources:
    """What other settings taught.

    Args:
        weights: Of each setting, for features centred at the basis' mean and a constant ``(S, E)``;
            a setting's mean latency is 1.
        noise: Relative deviation of each setting from its linear model ``(S,)``.
        names: Of the settings ``(S,)``.
    """

    weights: FloatArray
    noise: FloatArray
    names: tuple[str, ...]

    @property
    def mean(self) -> FloatArray:
        """``(E,)``."""
        mean: FloatArray = self.weights.mean(axis=0)
        return mean

    @property
    def covariance(self) -> FloatArray:
        """Between settings ``(E, E)``."""
        deviations = self.weights - self.mean
        covariance: FloatArray = deviations.T @ deviations / max(len(deviations) - 1, 1)
        return covariance


def joined(sources: Sequence[Sources]) -> Sources:
    """All settings of several; a name that comes twice is numbered."""
    names: list[str] = []
    for name in (name for part in sources for name in part.names):
        again = sum(known == name or known.startswith(f"{name} #") for known in names)
        names.append(f"{name} #{again + 1}" if again else name)
    weights, noise = ([getattr(part, field) for part in sources] for field in ("weights", "noise"))
    return Sources(np.concatenate(weights), np.concatenate(noise), tuple(names))


LEAST_SHARE = 0.002
"""A setting whose average network, carried over to a smaller size, takes less than this share of what it took
at its own is left out: what remains is the error of its constant."""


def carried_over(sources: Sources, basis: FeatureBasis, to: FeatureBasis) -> Sources:
    """What was learnt in a space of one size, for the same space at another.

    Milliseconds an operation are taken to be the same: weights are divided by the units of the one and
    multiplied by those of the other. Columns that only the other has get no weight.

    Raises:
        PredictorError: If no setting can be carried over.
    """
    column = {name: index for index, name in enumerate(basis.names)}
    known = np.array([name in column for name in to.names])
    origin = np.array([column.get(name, 0) for name in to.names])
    slopes = np.where(known, sources.weights[:, origin] * to.units / basis.units[origin], 0.0)
    constants = sources.weights[:, -1] - sources.weights[:, :-1] @ basis.mean
    means = slopes @ to.mean + constants
    kept = means > LEAST_SHARE
    if not kept.any():
        raise PredictorError("no setting can be carried over to this size", field="pool", value=sources.names)
    weights = np.concatenate([slopes[kept] / means[kept, None], np.ones((int(kept.sum()), 1))], axis=1)
    names = tuple(name for name, keep in zip(sources.names, kept, strict=True) if keep)
    return Sources(weights, sources.noise[kept], names)


class LinearTransfer:
    """Adapts linear models on a basis, with or without sources.

    Args:
        basis: Of the features.
        executions: Columns ``(K,)`` of each execution's counts, in the same order of kinds.
        sources: What :meth:`fit` gave, or None.
    """

    def __init__(
        self,
        basis: Basis,
        executions: Mapping[str, Sequence[int]] | None = None,
        sources: Sources | None = None,
    ) -> None:
        self.basis = basis
        self.executions = {name: np.asarray(columns) for name, columns in (executions or {}).items()}
        self.sources = sources

    # ---- The first life ------------------------------------------------------------------------

    def extended(self, features: FloatArray) -> FloatArray:
        """Centred features and a constant ``(N, E)``."""
        return np.concatenate([features - self.basis.mean, np.ones((len(features), 1))], axis=1)

    def fit(self, features: FloatArray, latencies_ms: FloatArray, names: Sequence[str]) -> Sources:
        """Weights of every setting that has measurements among ``latencies_ms (N, S)``, NaN where
        there are none: ridge regression under a prior for each block of features.

        Raises:
            PredictorError: If a setting has fewer than two measurements.
        """
        extended = self.extended(features)
        prior = sum(
            (SOURCE_DEVIATIONS[b.name] ** 2 * a for b, a in zip(self.basis.blocks, self._block_atoms, strict=True)),
            self._bias_atom,
        )
        root = _root(prior)
        weights, noise = [], []
        for name, column in zip(names, latencies_ms.T, strict=True):
            known = np.flatnonzero(np.isfinite(column))
            if len(known) < 2:
                raise PredictorError(
                    "too few measurements to learn from",
                    field="pool",
                    value=f"{name}: {len(known)}",
                    allowed="2 or more",
                )
            target = column[known] / column[known].mean()
            precision = 1.0 / (SOURCE_NOISE * np.sqrt(np.square(target) + NOISE_FLOOR**2))
            rows = extended[known] @ root * precision[:, None]
            residual = (target - 1.0) * precision
            solved = np.linalg.solve(rows.T @ rows + np.eye(rows.shape[1]), rows.T @ residual)
            weight = root @ solved
            weight[-1] += 1.0
            weights.append(weight)
            error = (extended[known] @ weight - target) * precision * SOURCE_NOISE
            # By what 90 % of errors stay below: tails are heavier than normal, and a few measurements
            # in published tables are plain wrong.
            noise.append(float(np.quantile(np.abs(error), 0.9)) / NORMAL_90)
        return Sources(np.stack(weights), np.array(noise), tuple(names))

    # ---- The second life -----------------------------------------------------------------------

    def design_features(self, features: FloatArray) -> FloatArray:
        """Features scaled by prior deviations, before anything is measured ``(N, R)``: for an
        optimal design."""
        table = ALONE_DESIGN_DEVIATIONS if self.sources is None else DESIGN_DEVIATIONS
        spread = [] if self.sources is None else [1.0]
        shares = np.square([*(table[block.name] for block in self.basis.blocks), self._bias_deviation, *spread])
        covariance = np.tensordot(shares, np.stack(self._prior.atoms), axes=1)
        covariance += _spread(np.stack([self._prior_means[0], *self._alternatives]))
        return np.asarray(self.extended(features) @ _root(covariance))

    def design_noise(self, features: FloatArray) -> FloatArray:
        """Variance of a measurement of each row, relative to the mean latency ``(N,)``."""
        mean = np.maximum(self.extended(features) @ self._prior_means[0], NOISE_FLOOR)
        return np.asarray(np.square(DESIGN_NOISE * mean))

    def adapt(self, features: FloatArray, latencies_ms: FloatArray) -> LinearParameters:
        """The model of one setting from measurements ``(N, F)``, ``(N,)``."""
        extended = self.extended(features)
        scale_ms = self._scale_ms(extended, latencies_ms)
        targets = latencies_ms / scale_ms
        rounding = resolution_ms(latencies_ms) ** 2 / 12 / scale_ms**2
        levels = np.square(NOISES)[:, None] * (np.square(targets) + NOISE_FLOOR**2) + rounding
        evidence = weigh(
            extended,
            self._scaled_means(extended, targets),
            self._prior,
            targets=targets,
            noise_variances=levels,
            noise_log_prior=self._noise_log_prior,
            caution=CAUTION,
        )
        return self._parameters(evidence, scale_ms, rounding, float(latencies_ms.min()))

    def _scale_ms(self, extended: FloatArray, latencies_ms: FloatArray) -> float:
        """Milliseconds of the prior's unit: the mean latency over the space, as far as the
        sources know what of it the measured networks are."""
        if self.sources is None:
            return float(latencies_ms.mean())
        return float(latencies_ms.sum() / np.maximum(extended @ self._prior_means[0], NOISE_FLOOR).sum())

    def _scaled_means(self, extended: FloatArray, targets: FloatArray) -> list[FloatArray]:
        """Prior means, each scaled to the measurements."""
        least = NOISE_FLOOR * len(targets)
        sums = [max(float(np.maximum(extended @ mean, 0.0).sum()), least) for mean in self._prior_means]
        return [mean * targets.sum() / total for mean, total in zip(self._prior_means, sums, strict=True)]

    @cached_property
    def _prior_means(self) -> list[FloatArray]:
        """Each ``(E,)``, 1 for an average network; the first is the best guess."""
        if self.sources is None:
            return [self._constant, *self._alternatives]
        return [self.sources.mean, *self._alternatives, *self.sources.weights]

    @cached_property
    def _alternatives(self) -> list[FloatArray]:
        """What a setting may be that is unlike the best guess in kind, not in degree."""
        return self._shares() if self.sources is None else self._substituted(self.sources.mean)

    @property
    def _constant(self) -> FloatArray:
        constant = np.zeros(len(self.basis.mean) + 1)
        constant[-1] = 1.0
        return constant

    def _shares(self) -> list[FloatArray]:
        """An average network's time spread evenly over kinds of work, for each execution."""
        groups = list(self.executions.values())
        if not groups and "work" in self.basis.groups:
            groups = [np.flatnonzero(self.basis.groups["work"].any(axis=1))]
        means = []
        for columns in groups:
            average = self.basis.mean[columns]
            if (average > 0).all():
                shares = self._constant
                shares[columns] = 1.0 / average / len(columns)
                means.append(shares)
        return means

    def _substituted(self, mean: FloatArray) -> list[FloatArray]:
        """``mean`` with all of its work on operations moved to one execution, for each of them."""
        if not self.executions:
            return []
        total = np.sum([mean[columns] for columns in self.executions.values()], axis=0)
        means = []
        for columns in self.executions.values():
            moved = mean.copy()
            for others in self.executions.values():
                moved[others] = 0.0
            moved[columns] = total
            means.append(moved)
        return means

    @property
    def _noise_log_prior(self) -> FloatArray | None:
        """Log density of each noise level: what sources show, spread by ``NOISE_SPREAD``."""
        if self.sources is None:
            return None
        distance = np.log(np.array(NOISES)[:, None] / np.maximum(self.sources.noise, NOISES[0])) / NOISE_SPREAD
        return np.asarray(np.log(np.exp(-0.5 * np.square(distance)).mean(axis=1) + 1e-6))

    @cached_property
    def _block_atoms(self) -> list[FloatArray]:
        atoms = []
        for block in self.basis.blocks:
            atom = np.zeros((len(self.basis.mean) + 1,) * 2)
            atom[:-1, :-1] = block.projection @ block.projection.T
            atoms.append(atom)
        return atoms

    @property
    def _bias_deviation(self) -> float:
        return ALONE_BIAS_DEVIATION if self.sources is None else BIAS_DEVIATION

    @property
    def _bias_atom(self) -> FloatArray:
        atom = np.zeros((len(self.basis.mean) + 1,) * 2)
        atom[-1, -1] = 1.0
        return atom

    @cached_property
    def _prior(self) -> PriorGrid:
        """Covariances of a new setting's weights: the sources' spread, blocks, the constant."""
        names = [block.name for block in self.basis.blocks]
        own = OWN_DEVIATIONS if len(names) > 1 else OWN_WORK_DEVIATIONS
        deviations = _combinations(ALONE_DEVIATIONS if self.sources is None else own, names)
        atoms = [*self._block_atoms, self._bias_atom]
        deviations = np.insert(deviations, len(names), self._bias_deviation, axis=1)
        if self.sources is not None:
            atoms.append(self.sources.covariance)
            spreads = np.repeat(SPREADS, len(deviations))[:, None]
            deviations = np.concatenate([np.tile(deviations, (len(SPREADS), 1)), spreads], axis=1)
        return PriorGrid(tuple(atoms), np.square(deviations))

    def _parameters(self, evidence: Evidence, scale_ms: float, rounding: float, least_ms: float) -> LinearParameters:
        factor, rest = factorise(evidence.covariance * evidence.inflation, self.basis.moment_root)
        # The prior already answers for the weights; the noise is estimated from the measurements alone.
        noise_variance = evidence.noise_shares @ np.square(NOISES) * evidence.inflation * evidence.widening
        noise = float(np.sqrt(noise_variance))
        weights, mean = evidence.weights, self.basis.mean
        return LinearParameters(
            weights=weights[:-1] * scale_ms,
            bias=float(weights[-1] - mean @ weights[:-1]) * scale_ms,
            factor=factor[:-1] * scale_ms,
            factor_bias=(factor[-1] - mean @ factor[:-1]) * scale_ms,
            variance=float(rest + (noise * NOISE_FLOOR) ** 2 + rounding) * scale_ms**2,
            relative_noise=noise,
            floor_ms=FLOOR_SHARE * least_ms,
        )


def _combinations(grid: Grid, names: Sequence[str]) -> FloatArray:
    """Every combination of a grid's deviations, for the blocks that there are ``(H, B)``."""
    rows = []
    for choice in product(*(range(len(next(iter(group.values())))) for group in grid)):
        table = {
            name: values[index] for group, index in zip(grid, choice, strict=True) for name, values in group.items()
        }
        rows.append([table[name] for name in names])
    return np.unique(np.array(rows), axis=0)


def resolution_ms(latencies_ms: FloatArray) -> float:
    """The step of the timer: the largest power of ten of which all latencies are multiples, and 0
    where that is below a thousandth of the smallest (it then does not matter)."""
    for exponent in range(3, -7, -1):
        step = 10.0**exponent
        if step < 1e-3 * float(latencies_ms.min()):
            return 0.0
        steps = latencies_ms / step
        if np.abs(steps - np.round(steps)).max() < 1e-6:
            return step
    return 0.0


def _root(matrix: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    kept = values > 1e-12 * max(float(values[-1]), 1e-300)
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _spread(rows: FloatArray) -> FloatArray:
    deviations = rows - rows.mean(axis=0)
    return np.asarray(deviations.T @ deviations / len(rows))
