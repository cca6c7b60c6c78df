"""Can the limit be met at all? If not, a diagnosis instead of an endless search."""

from __future__ import annotations

import math

import numpy as np

from ..errors import InfeasibleError
from ..search_spaces import Genotypes
from .problem import Problem

SAMPLES = 20_000
ROUNDS = 30
KEPT = 200


def fastest(problem: Problem, seed: int) -> tuple[Genotypes, float]:
    """The row with the smallest violation found by sampling and hill climbing, and that violation.

    Vectorised over a population; a fixed number of rounds, so it always ends.
    """
    rng = np.random.default_rng([seed, 0xFEA5])
    rows = problem.space.sample(SAMPLES, rng)
    best = rows[np.argsort(problem.violation(rows), kind="stable")[:KEPT]]
    for _ in range(ROUNDS):
        children = problem.space.mutate(np.repeat(best, 5, axis=0), rng, 2.0 / len(problem.space.decisions))
        pool = np.unique(np.concatenate([best, children]), axis=0)
        best = pool[np.argsort(problem.violation(pool), kind="stable")[:KEPT]]
    return best[0], float(problem.violation(best[:1])[0])


def check_feasible(problem: Problem, seed: int) -> None:
    """Ends the search before it starts if no architecture meets the limit.

    Raises:
        InfeasibleError: With the fastest reachable architecture, what it is predicted to take, and
            the decisions that already stand at their fastest choice.
    """
    if problem.limit_ms is None:
        return
    row, violation = fastest(problem, seed)
    if violation <= 0:
        return
    mean, std = (float(a[0]) for a in problem.latency.predict(row[None]))
    confidence = problem.objective.limit.confidence
    reached = (1.0 + violation) * problem.limit_ms
    if mean <= problem.limit_ms:
        advice = (
            f"The fastest is predicted at {mean:.4g} ± {std:.2g} ms: within the limit on average, but not with "
            f"probability {confidence:g}. More measurements (study.references) or a lower objective.confidence may do"
        )
    else:
        advice = (
            f"The fastest reachable is predicted at {mean:.4g} ± {std:.2g} ms. "
            "Raise the limit, or make the space smaller"
        )
    raise InfeasibleError(
        f"no architecture of {problem.space.name} meets it with probability {confidence:g}",
        field="objective.latency_ms",
        value=round(problem.limit_ms, 6),
        allowed=f"at least {_rounded_up(reached):.4g} ms here",
        hint=f"{advice}. Decisions that cost most and already stand at their fastest choice: {binding(problem, row)}.",
    )


def _rounded_up(value: float, digits: int = 4) -> float:
    """To significant digits, so that the limit that is offered can be met as it is printed."""
    step = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    return math.ceil(value / step + 1e-9) * step


def binding(problem: Problem, row: Genotypes, most: int = 4) -> str:
    """The decisions whose other choices would add most latency to ``row``, with that addition."""
    base = float(problem.latency.predict_mean(row[None])[0])
    additions: list[tuple[float, str]] = []
    active = problem.space.algebra.active(row[None])[0]
    for gene, decision in enumerate(problem.space.decisions):
        others = [c for c in range(len(decision.choices)) if c != row[gene]]
        if not active[gene] or not others:
            continue
        variants = np.repeat(row[None], len(others), axis=0)
        variants[:, gene] = others
        means = problem.latency.predict_mean(problem.space.canonical(variants))
        additions.append((float(means.min()) - base, f"{decision.name}={decision.choices[row[gene]]}"))
    additions.sort(reverse=True)
    return ", ".join(f"{name} (+{extra:.2g} ms otherwise)" for extra, name in additions[:most])
