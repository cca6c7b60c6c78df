"""HELP as a latency predictor: meta-training on a pool, references, adapting.

Shapes: N architectures, D decisions, K measured architectures, R references.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...errors import PredictorError
from ...records.pool import DevicePool
from ...search_spaces import Genotypes, SearchSpace
from ...search_spaces.variation import distinct
from ..analytic import FLOOR_SHARE, AnalyticPredictor
from ..base import LatencyPredictor
from ..checks import checked_measurements, pool_genotypes
from ..predictor_bundle import load_state
from ..regression import checked_count, checked_strength, folds, relative_deviation
from .adaptation import DENORMALISATIONS, SCALINGS, Adapter, Denormalisation, Measured, Scaling
from .encoding import architecture_graph, node_columns
from .meta_learning import MetaLearner, MetaProgress, MetaSettings, MetaTrainer, MetaWeights
from .model import HelpLatencyModel
from .network import HelpNetwork, as_tensor
from .tasks import meta_tasks

FloatArray = npt.NDArray[np.float64]

SUPPORTS = ("all", "others")
SELECTIONS = ("both", "validation", "last")
N_REFERENCES = 10


class HelpPredictor(LatencyPredictor):
    """Hardware-adaptive efficient latency prediction (Lee et al. 2021, 2106.08630).

    Latencies of a fixed set of references, between their least and greatest, describe a device. A
    network reads them beside the architecture, a second one (z) changes the first one's head by
    them, and two gradient steps with learned step sizes fit the measurements. All of it is
    meta-trained over the devices of a pool.

    The defaults adapt from what was measured and nothing else. HELP's own evaluation is
    ``support=others`` (ten more measurements than the references), ``scaling=pool``
    (``adapt(..., bounds_ms=...)``), ``denormalisation=two_point``.

    Departures: a reference that was not measured is estimated by :class:`AnalyticPredictor` from
    what was (HELP needs all of them); the deviation, which HELP lacks, is a share of the mean from
    adapting without each measurement, plus that between draws of z.

    Args:
        space: NAS-Bench-201 is read as graphs, any other as one-hot choices.
        references: Rows of the reference set; by default random ones of the pool, the space's
            reference network among them.
        n_references: How many, if they are not given.
        validation: Settings of the pool to validate on, not to learn from.
        selection: Weights are those of the best mean Spearman over learnt and validation settings
            (``both``, HELP's rule), over validation settings only, or the ``last``.
        trim: Share of each setting's fastest and of its slowest architectures not to learn from.
        support: Measurements that the gradient steps fit: ``all``, or the ``others`` than references.
        scaling: Of their targets: by the line that the networks ``predicted``, by the least and
            greatest ``measured``, or by those of the target's ``pool``.
        denormalisation: Scores become ms by ``least_squares`` (relative) or through ``two_point``.
        draws: Of z, averaged.
        episodes: Of meta-training; HELP has 2,000 for NAS-Bench-201, 4,000 for FBNet.
        tasks: Settings an episode.
        query: Architectures of the outer loss.
        steps: Gradient steps in training and adapting; 0 leaves the embedding alone.
        learning_rate: Of Adam.
        modulate: Whether z changes the head.
        embed: Whether networks see the embedding.
        validate_every: Episodes between validations and checkpoints.
        checkpoint: File to go on from after a kill.
        bundle: Folder with what was learnt; None to call :meth:`fit`.
    """

    minimum = 4
    learns = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        references: Sequence[Sequence[int]] | Genotypes | None = None,
        n_references: int = N_REFERENCES,
        validation: Sequence[str] = (),
        selection: str = "both",
        trim: float = 0.1,
        support: str = "all",
        scaling: Scaling = "predicted",
        denormalisation: Denormalisation = "least_squares",
        draws: int = 10,
        episodes: int = 2000,
        tasks: int = 8,
        query: int = 200,
        steps: int = 2,
        learning_rate: float = 1e-4,
        modulate: bool = True,
        embed: bool = True,
        validate_every: int = 50,
        checkpoint: str | Path | None = None,
        bundle: str | Path | None = None,
    ) -> None:
        super().__init__(space)
        self.n_references = checked_count(n_references, "n_references", 2)
        self.validation = tuple(validation)
        self.selection = _one_of(selection, "selection", SELECTIONS)
        if self.selection == "validation" and not self.validation:
            raise PredictorError("needs settings to validate on", field="validation", value=[], allowed="names")
        if not (isinstance(trim, (int, float)) and 0 <= trim < 0.5):
            raise PredictorError("out of range", field="trim", value=trim, allowed="0 to less than 0.5")
        self.trim = float(trim)
        self.support = _one_of(support, "support", SUPPORTS)
        self.scaling: Scaling = _one_of(scaling, "scaling", SCALINGS)  # type: ignore[assignment]
        self.denormalisation: Denormalisation = _one_of(  # type: ignore[assignment]
            denormalisation, "denormalisation", DENORMALISATIONS
        )
        self.draws = checked_count(draws, "draws")
        self.settings = MetaSettings(
            episodes=checked_count(episodes, "episodes"),
            tasks=checked_count(tasks, "tasks"),
            query=checked_count(query, "query"),
            steps=checked_count(steps, "steps", 0),
            learning_rate=checked_strength(learning_rate, "learning_rate"),
            modulate=bool(modulate),
            embed=bool(embed),
            validate_every=checked_count(validate_every, "validate_every"),
        )
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self._references: Genotypes | None = None
        if references is not None:
            rows = space.canonical(space.algebra.validate(np.asarray(references)))
            if len(distinct(space, rows)) != len(rows) or len(rows) < 2:
                raise PredictorError("references repeat", field="references", value=len(rows), allowed="2 or more")
            self._references = rows
        self._given = self._references
        self._weights: MetaWeights | None = None
        if bundle is not None:
            self.restore(load_state(Path(bundle), self))

    # ---- The first life --------------------------------------------------------------------

    def fit(self, pool: DevicePool, *, seed: int = 0, progress: Callable[[MetaProgress], None] | None = None) -> None:
        """See :meth:`LatencyPredictor.fit`. Some minutes on one core for NAS-Bench-201.

        Args:
            pool: Every reference is measured on every setting.
            seed: Of references, initial weights and episodes.
            progress: Called after each episode.
        """
        genotypes = pool_genotypes(self.space, pool)
        unknown = sorted(set(self.validation) - set(pool.settings))
        if unknown:
            raise PredictorError("not in the pool", field="validation", value=unknown, allowed=pool.settings)
        learnt = [name for name in pool.settings if name not in self.validation]
        if not learnt:
            raise PredictorError("no setting is left to learn from", field="validation", value=self.validation)
        references = self._reference_set(pool, genotypes, seed)
        rows = _find(self.space, genotypes, references)
        tasks = meta_tasks(pool.select(learnt).latencies_ms, rows, self.trim)
        chosen_by = {"both": pool.settings, "validation": self.validation, "last": ()}[self.selection]
        validation = meta_tasks(pool.select(chosen_by).latencies_ms, rows, self.trim) if chosen_by else None
        trainer = MetaTrainer(self._learner(len(rows)), seed=seed, checkpoint=self.checkpoint, progress=progress)
        columns = as_tensor(node_columns(self.space, genotypes))
        self._weights = trainer.train(columns, tasks, torch.from_numpy(rows), validation)
        self._references = references

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`LatencyPredictor.state`: meta-learnt weights and the reference set."""
        if self._weights is None or self._references is None:
            return {}
        weights = {name: weight.numpy() for name, weight in self._weights.flat().items()}
        return {"references": self._references, **weights}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """See :meth:`LatencyPredictor.restore`."""
        if not arrays:
            self._weights, self._references = None, self._given
            return
        references = np.asarray(arrays.get("references", np.zeros((0, 0))))
        if references.ndim != 2 or references.shape[1] != len(self.space.decisions) or len(references) < 2:
            raise PredictorError("wrong arrays", field="arrays", value=sorted(arrays)[:8], allowed="those of state()")
        expected = self._learner(len(references)).initial(0).flat()
        wrong = sorted(set(arrays) ^ {"references", *expected}) or [
            name for name, weight in expected.items() if arrays[name].shape != tuple(weight.shape)
        ]
        if wrong:
            raise PredictorError("wrong arrays", field="arrays", value=wrong[:8], allowed="those of state()")
        self._references = self.space.canonical(self.space.algebra.validate(references))
        self._weights = MetaWeights.from_flat({name: as_tensor(arrays[name]) for name in expected})

    # ---- The second life -------------------------------------------------------------------

    def references(self, n: int, *, seed: int = 0, among: Genotypes | None = None) -> Genotypes:
        """The reference set, and random others if ``n`` is larger; the first ``n`` if it is smaller.

        Where ``among`` lacks a reference, random rows of it take its place.
        """
        known = self._known_references()
        rng = np.random.default_rng(seed)
        if among is None:
            sampled = self.space.sample(4 * n + 64, rng)
        else:
            allowed = distinct(self.space, self.space.canonical(among))
            known = known[np.isin(self.space.algebra.hashes(known), self.space.algebra.hashes(allowed))]
            named = [self.space.named_genotype(name) for name in list(self.space.named)[:1]]
            named = [row for row in named if (allowed == row).all(axis=1).any()]
            known = np.concatenate([np.array(named, dtype=known.dtype).reshape(-1, known.shape[1]), known])
            sampled = allowed[rng.permutation(len(allowed))]
        rows = distinct(self.space, np.concatenate([known, sampled]))
        if not self.minimum <= n <= len(rows):
            raise PredictorError(
                "cannot choose that many reference architectures",
                field="n",
                value=n,
                allowed=f"{self.minimum} to {len(rows)}",
            )
        return rows[:n]

    def adapt(
        self, genotypes: Genotypes, latencies_ms: FloatArray, *, bounds_ms: tuple[float, float] | None = None
    ) -> HelpLatencyModel:
        """See :meth:`LatencyPredictor.adapt`.

        Args:
            genotypes: ``(N, D)``.
            latencies_ms: ``(N,)``.
            bounds_ms: Least and greatest latency of the target's pool; for ``scaling=pool`` only.
        """
        genotypes, latencies = checked_measurements(self.space, genotypes, latencies_ms, self.minimum)
        genotypes, latencies = _averaged(genotypes, latencies)
        adapter = self._adapter()
        measured = self._measured(genotypes, latencies)
        if not measured.support.any():
            raise PredictorError(
                "support=others needs measurements of others than the references", field="genotypes",
                value=len(genotypes), allowed="the references and more",
            )  # fmt: skip
        adaptation = adapter.adapt(measured, draws=self.draws, seed=0, bounds_ms=bounds_ms)
        floor_ms = FLOOR_SHARE * float(latencies.min())
        errors = self._left_out_errors(adapter, genotypes, latencies, floor_ms, bounds_ms)
        return HelpLatencyModel(self.space, adapter.learner.network, adaptation, relative_deviation(errors), floor_ms)

    def _left_out_errors(
        self,
        adapter: Adapter,
        genotypes: Genotypes,
        latencies: FloatArray,
        floor_ms: float,
        bounds_ms: tuple[float, float] | None,
    ) -> FloatArray:
        """Relative errors ``(K,)`` on what was left out, also of the embedding, with z at its mean."""
        columns = as_tensor(node_columns(self.space, genotypes))
        errors = np.empty(len(latencies))
        for part in folds(genotypes.astype(np.float64)):
            measured = self._measured(genotypes[~part], latencies[~part])
            if not measured.support.any():
                measured = replace(measured, support=np.ones(len(measured.latencies_ms), dtype=bool))
            adaptation = adapter.adapt(measured, draws=0, seed=0, bounds_ms=bounds_ms)
            mean, _ = adapter.predict(adaptation, columns[:, torch.from_numpy(np.flatnonzero(part))])
            errors[part] = np.maximum(mean, floor_ms) / latencies[part] - 1.0
        return errors

    def _measured(self, genotypes: Genotypes, latencies: FloatArray) -> Measured:
        """Which measurements are references, and what the references would take that were not measured."""
        references = self._known_references()
        hashes = self.space.algebra.hashes(genotypes)
        reference_hashes = self.space.algebra.hashes(references)
        known = dict(zip(hashes.tolist(), latencies.tolist(), strict=True))
        missing = ~np.isin(reference_hashes, hashes)
        found = np.array([known.get(key, np.nan) for key in reference_hashes.tolist()])
        if missing.any():
            found[missing] = self._estimator.adapt(genotypes, latencies).predict_mean(references[missing])
        support = np.ones(len(genotypes), dtype=bool)
        if self.support == "others":
            support = ~np.isin(hashes, reference_hashes)
        return Measured(as_tensor(node_columns(self.space, genotypes)), latencies, support, found)

    # ---- Parts -----------------------------------------------------------------------------

    @cached_property
    def _estimator(self) -> AnalyticPredictor:
        return AnalyticPredictor(self.space)

    def _learner(self, n_references: int) -> MetaLearner:
        return MetaLearner(HelpNetwork(architecture_graph(self.space), n_references), self.settings)

    def _adapter(self) -> Adapter:
        if self._weights is None:
            raise PredictorError(
                "learns from a pool of other settings first", field="predictor", value=type(self).__name__,
                hint="`gnomon predictor train` writes a bundle for predictor.bundle=FOLDER; in Python, fit(pool).",
            )  # fmt: skip
        learner = self._learner(len(self._known_references()))
        return Adapter(learner, self._weights, self.scaling, self.denormalisation)

    def _known_references(self) -> Genotypes:
        if self._references is None:
            raise PredictorError(
                "learns from a pool of other settings first", field="predictor", value=type(self).__name__,
                hint="`gnomon predictor train` writes a bundle for predictor.bundle=FOLDER; in Python, fit(pool).",
            )  # fmt: skip
        return self._references

    def _reference_set(self, pool: DevicePool, genotypes: Genotypes, seed: int) -> Genotypes:
        """References given, or random rows of the pool that every setting has."""
        complete = genotypes[~np.isnan(pool.latencies_ms).any(axis=1)]
        if self._given is not None:
            absent = int((~np.isin(self.space.algebra.hashes(self._given), self.space.algebra.hashes(complete))).sum())
            if absent:
                raise PredictorError(
                    "the pool lacks latencies of references on some setting", field="references",
                    value=f"{absent} of {len(self._given)}", allowed="measured on every setting",
                )  # fmt: skip
            return self._given
        if len(complete) < self.n_references:
            raise PredictorError(
                "too few architectures of the pool are measured on every setting", field="n_references",
                value=self.n_references, allowed=f"at most {len(complete)}",
            )  # fmt: skip
        named = [self.space.named_genotype(name) for name in list(self.space.named)[:1]]
        first = complete[[bool(named) and bool((row == named[0]).all()) for row in complete]]
        shuffled = complete[np.random.default_rng(seed).permutation(len(complete))]
        return distinct(self.space, np.concatenate([first, shuffled]))[: self.n_references]


def _averaged(genotypes: Genotypes, latencies: FloatArray) -> tuple[Genotypes, FloatArray]:
    """One row an architecture, with the mean of its latencies."""
    rows, group, counts = np.unique(genotypes, axis=0, return_inverse=True, return_counts=True)
    return rows, np.bincount(group.ravel(), weights=latencies) / counts


def _find(space: SearchSpace, genotypes: Genotypes, wanted: Genotypes) -> npt.NDArray[np.int64]:
    """Row numbers of ``wanted`` among ``genotypes``."""
    index = {key: row for row, key in enumerate(space.algebra.hashes(genotypes).tolist())}
    return np.array([index[key] for key in space.algebra.hashes(wanted).tolist()], dtype=np.int64)


def _one_of(value: str, field: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise PredictorError("unknown", field=field, value=value, allowed=allowed)
    return value
