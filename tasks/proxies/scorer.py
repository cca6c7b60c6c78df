"""Scores of architectures: builds networks, looks at them with one proxy after the other, remembers.

Shapes: N architectures, D decisions, P proxies.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError, TaskError
from ...search_spaces import Genotypes, SearchSpace
from ..base import Task
from ..torch_state import derived_seed, seeded, torch_threads
from .base import DEGENERATE, Minibatch, Proxy, responds
from .store import ScoreStore

if TYPE_CHECKING:
    from torch import nn

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """What proxies say of one network.

    Args:
        values: ``(P,)``; finite or -inf.
        seconds: Of the processor that each took ``(P,)``, without building the network; in the past if it was known.
    """

    values: FloatArray
    seconds: FloatArray


class NetworkScorer:
    """Scores networks of one space with several proxies.

    All networks are initialised under the same seed and look at the same minibatches. A network that answers every
    example alike, or with what is not finite, gets -inf from every proxy that looks at what flows through it.

    Args:
        space: Builds the networks.
        task: Gives the inputs, or at least their shape and the number of classes.
        proxies: With distinct names.
        inputs: ``task`` for examples of its train split, ``gaussian`` for noise with random labels.
        batch_size: Examples in a minibatch.
        repeats: Initialisations and minibatches over which scores are averaged.
        store: A file that keeps scores; None for none.
        threads: Torch threads; None leaves torch as it is.

    Raises:
        ConfigError: If a setting is out of range or two proxies share a name.
    """

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        proxies: Sequence[Proxy],
        *,
        inputs: str = "task",
        batch_size: int = 64,
        repeats: int = 1,
        store: Path | str | None = None,
        threads: int | None = 1,
    ) -> None:
        from .minibatches import INPUTS

        _check_proxies(proxies)
        if inputs not in INPUTS:
            raise ConfigError("unknown choice", field="quality.inputs", value=inputs, allowed=INPUTS)
        for field, value, least in (("batch_size", batch_size, 2), ("repeats", repeats, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError("too small", field=f"quality.{field}", value=value, allowed=f"{least} or more")
        self.space, self.task, self.proxies = space, task, tuple(proxies)
        self.inputs, self.batch_size, self.repeats, self.threads = inputs, batch_size, repeats, threads
        self.store = None if store is None else ScoreStore(store)
        self._identities = {p.name: json.dumps([p.name, p.settings()], sort_keys=True) for p in self.proxies}
        self._batches = lru_cache(maxsize=4)(self._make_batches)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the P columns."""
        return tuple(proxy.name for proxy in self.proxies)

    def identity(self) -> dict[str, Any]:
        """What scores depend on besides architecture, proxy and seed, as JSON."""
        if self.inputs == "task":
            data: Any = self.task.identity()
        else:
            data = {"input_shape": list(self.task.input_shape), "classes": len(self.task.labels)}
        return {
            "space": self.space.spec(),
            "inputs": self.inputs,
            "data": data,
            "batch_size": self.batch_size,
            "repeats": self.repeats,
        }

    def settings(self) -> list[dict[str, Any]]:
        """Names and settings of the proxies, as JSON."""
        return [{"name": proxy.name, **proxy.settings()} for proxy in self.proxies]

    def scores(self, genotypes: Genotypes, seed: int) -> FloatArray:
        """Of canonical rows ``(N, P)``; finite or -inf. See :meth:`score`."""
        found = [self.score(self.space.config(row), seed).values for row in genotypes]
        return np.array(found, dtype=np.float64).reshape(len(genotypes), len(self.proxies))

    def score(self, config: Mapping[str, Any], seed: int) -> Scores:
        """Of one architecture; deterministic by seed.

        Raises:
            TaskError: If the network cannot be built or run, or has nothing that a proxy looks at.
        """
        scope = {**self.identity(), "seed": seed}
        key = self.space.keys(self.space.genotype(config)[None])[0]
        known = {} if self.store is None else self.store.get(scope, key, self._identities)
        missing = [proxy for proxy in self.proxies if proxy.name not in known]
        if missing:
            with torch_threads(self.threads):
                found = self._compute(config, key, missing, seed)
            if self.store is not None:
                self.store.put(scope, key, self._identities, found)
            known.update(found)
        pairs = np.array([known[name] for name in self.names], dtype=np.float64)
        return Scores(pairs[:, 0], pairs[:, 1])

    def _compute(
        self, config: Mapping[str, Any], key: str, proxies: Sequence[Proxy], seed: int
    ) -> dict[str, tuple[float, float]]:
        """(score, seconds) by name, means over the repeats."""
        totals = {proxy.name: np.zeros(2) for proxy in proxies}
        count = max(proxy.batches for proxy in proxies)
        for repeat in range(self.repeats):
            batches = self._batches(derived_seed(seed, repeat, 0), count)
            try:
                with seeded(derived_seed(seed, repeat, 1)):
                    model = self.space.build(config)
                    alive = responds(copy.deepcopy(model), batches[0])
                for proxy in proxies:
                    with seeded(derived_seed(seed, repeat, 2)):
                        totals[proxy.name] += _timed(proxy, copy.deepcopy(model), batches, alive)
            except RuntimeError as error:
                raise TaskError(f"architecture {key} cannot be scored: {error}") from error
        return {name: (float(t[0] / self.repeats), float(t[1] / self.repeats)) for name, t in totals.items()}

    def _make_batches(self, seed: int, count: int) -> list[Minibatch]:
        from .minibatches import minibatches

        return minibatches(self.task, self.inputs, count, self.batch_size, seed)


def scores(
    space: SearchSpace,
    genotypes: Genotypes,
    task: Task,
    seed: int,
    proxies: Sequence[Proxy] | None = None,
    **settings: Any,
) -> FloatArray:
    """Scores ``(N, P)`` of canonical rows, finite or -inf: columns for whatever wants them, such as predictors of
    quality.

    Args:
        space, genotypes: What is scored.
        task: See :class:`NetworkScorer`.
        seed: Of initialisation and minibatches.
        proxies: None for the default of ``quality=proxy`` (:func:`~gnomon.tasks.proxies.catalog.default_proxies`).
        settings: Of :class:`NetworkScorer`, for example ``store="scores.sqlite"``.
    """
    if proxies is None:
        from .catalog import default_proxies

        proxies = default_proxies()
    return NetworkScorer(space, task, proxies, **settings).scores(genotypes, seed)


def _timed(proxy: Proxy, model: nn.Module, batches: Sequence[Minibatch], alive: bool) -> tuple[float, float]:
    """Score and seconds."""
    if proxy.needs_signal and not alive:
        return DEGENERATE, 0.0
    start = time.process_time()
    value = proxy.score(model, batches[: max(1, proxy.batches)])
    return value, time.process_time() - start


def _check_proxies(proxies: Sequence[Proxy]) -> None:
    names = [getattr(proxy, "name", None) for proxy in proxies]
    if not names or not all(isinstance(proxy, Proxy) for proxy in proxies) or len(set(names)) < len(names):
        raise ConfigError(
            "not a list of proxies",
            field="quality.proxies",
            value=[str(proxy) for proxy in proxies] if None in names else names,
            allowed="one or more classes of gnomon.tasks.proxies, each once",
        )
