"""BoTorch's side of ``strategy=botorch``: a Gaussian process of quality, and the acquisition function on it.

Shapes: N evaluated trials, D decisions, F features, C candidates, M losses, S samples, q rows of a batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import DependencyError
from ...search_spaces import GENE_DTYPE, Genotypes

try:
    from botorch.acquisition.logei import qLogExpectedImprovement, qLogNoisyExpectedImprovement
    from botorch.acquisition.multi_objective import logei
    from botorch.acquisition.multi_objective.logei import (
        qLogExpectedHypervolumeImprovement,
        qLogNoisyExpectedHypervolumeImprovement,
    )
    from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective
    from botorch.acquisition.objective import GenericMCObjective
    from botorch.exceptions.warnings import BotorchWarning
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms.input import InputTransform
    from botorch.optim.optimize import optimize_acqf_discrete
    from botorch.sampling.normal import SobolQMCNormalSampler
    from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning
    from gpytorch.kernels import LinearKernel, RBFKernel, ScaleKernel
    from gpytorch.mlls import ExactMarginalLogLikelihood
except ImportError as error:
    raise DependencyError(
        "strategy=botorch needs BoTorch, which is not installed",
        field="strategy",
        value="botorch",
        hint="Run: pip install 'gnomon-nas[botorch]'",
    ) from error

logei._load_attempted = True
# BoTorch would compile C++ at first use, for a minute and into the user's cache, and wait for ever for a compilation
# that was killed; results would depend on whether there is a compiler.

FloatArray = npt.NDArray[np.float64]
Features = Callable[[Genotypes], FloatArray]
Losses = Callable[[Genotypes, FloatArray], FloatArray]
"""Rows ``(N, D)`` and their quality ``(N,)``, in the process's unit, to scaled losses ``(N, M)``: 0 is the reference
point, below it counts."""


class _Encode(InputTransform, torch.nn.Module):
    """Genes ``(..., D)`` to features ``(..., F)``: the process sees features, the objective sees genes."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self._features = features
        self.transform_on_train = self.transform_on_eval = self.transform_on_fantasize = True
        self.is_one_to_many = False

    def transform(self, X: Tensor) -> Tensor:
        found = self._features(_rows(X))
        return torch.from_numpy(found).reshape(*X.shape[:-1], found.shape[1])


def choose(
    rows: Genotypes,
    targets: FloatArray,
    candidates: Genotypes,
    pending: Genotypes,
    counted: npt.NDArray[np.int64],
    n: int,
    *,
    features: Features,
    losses: Losses,
    noisy: bool,
    samples: int,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Positions of up to ``n`` candidates, chosen one after the other for the largest joint improvement.

    Args:
        rows, targets: Evaluated ``(N, D)`` and their standardised quality ``(N,)``.
        candidates: To choose from ``(C, D)``.
        pending: Rows under evaluation ``(P, D)``.
        counted: Positions of the evaluated rows over which an improvement is one, at least one.
        n: Batch size.
        features: What the process sees of a row.
        losses: Of a row and its quality.
        noisy: Whether qualities carry noise, so that the front itself is uncertain.
        samples: Monte-Carlo samples.
        seed: Of everything random.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.filterwarnings("ignore", module="(botorch|gpytorch|linear_operator)")
        torch.manual_seed(seed)
        model = _process(rows, targets, features)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        n = min(n, len(candidates))
        if noisy:
            acquisition = _acquisition(model, rows[counted], targets[counted], pending, losses, noisy, samples, seed)
            chosen, _ = optimize_acqf_discrete(acquisition, q=n, choices=_tensor(candidates))
            position = {row: i for i, row in enumerate(map(tuple, candidates.tolist()))}
            return np.array([position[row] for row in map(tuple, _rows(chosen).tolist())], dtype=np.int64)
        return _believed(model, rows, targets, candidates, pending, counted, n, features, losses, samples, seed)


def _process(rows: Genotypes, targets: FloatArray, features: Features) -> Any:
    """A Gaussian process of quality, not fitted: linear and squared exponential."""
    return SingleTaskGP(
        _tensor(rows),
        torch.from_numpy(targets)[:, None],
        covar_module=ScaleKernel(LinearKernel()) + ScaleKernel(RBFKernel()),
        outcome_transform=None,
        input_transform=_Encode(features),
    )


def _believed(
    model: Any,
    rows: Genotypes,
    targets: FloatArray,
    candidates: Genotypes,
    pending: Genotypes,
    counted: npt.NDArray[np.int64],
    n: int,
    features: Features,
    losses: Losses,
    samples: int,
    seed: int,
) -> npt.NDArray[np.int64]:
    """A batch of single improvements; what is pending or chosen already is believed at its mean (Ginsbourger et al.
    2010). Joint improvement without noise takes time that doubles with every row of a batch."""
    taken: list[int] = []
    none = pending[:0]
    for _ in range(n):
        extra = np.concatenate([pending, candidates[taken]])
        known, values, seen, hoped = rows, targets, rows[counted], targets[counted]
        believing = model
        if len(extra):
            with torch.no_grad():
                means = model.posterior(_tensor(extra)).mean.numpy().ravel()
            known, values = np.concatenate([rows, extra]), np.concatenate([targets, means])
            seen, hoped = np.concatenate([seen, extra]), np.concatenate([hoped, means])
            believing = _process(known, values, features)
            believing.load_state_dict(model.state_dict())
            believing.eval()
        acquisition = _acquisition(believing, seen, hoped, none, losses, False, samples, seed)
        with torch.no_grad():
            gains = acquisition(_tensor(candidates)[:, None]).numpy().copy()
        gains[taken] = -np.inf
        taken.append(int(gains.argmax()))
    return np.array(taken, dtype=np.int64)


def _acquisition(
    model: Any,
    rows: Genotypes,
    targets: FloatArray,
    pending: Genotypes,
    losses: Losses,
    noisy: bool,
    samples: int,
    seed: int,
) -> Any:
    """qLogEHVI or qLogNEHVI (Ament et al. 2023, 2310.20708; Daulton et al. 2020 and 2021); for one loss qLogEI."""
    values = -losses(rows, targets)

    def objective(drawn: Tensor, X: Tensor | None = None) -> Tensor:
        """Quality ``(..., q, 1)`` of genes ``(..., q, D)`` to scaled values ``(..., q, M)``, larger is better."""
        if X is None:
            raise ValueError("the objective needs to know which architectures were drawn")
        genes = X.expand(*drawn.shape[:-1], X.shape[-1])
        found = -losses(_rows(genes), drawn.detach().numpy().reshape(-1))
        return torch.from_numpy(found).reshape(*drawn.shape[:-1], found.shape[1])

    common = {
        "model": model,
        "sampler": SobolQMCNormalSampler(torch.Size([samples]), seed=seed),
        "X_pending": _tensor(pending) if len(pending) else None,
    }
    if values.shape[1] == 1:

        def value(drawn: Tensor, X: Tensor | None = None) -> Tensor:
            return objective(drawn, X).squeeze(-1)

        single = GenericMCObjective(value)
        if noisy:
            return qLogNoisyExpectedImprovement(X_baseline=_tensor(rows), objective=single, cache_root=False, **common)
        return qLogExpectedImprovement(best_f=float(values.max()), objective=single, **common)
    several = GenericMCMultiOutputObjective(objective)
    origin = torch.zeros(values.shape[1], dtype=torch.float64)
    if noisy:
        return qLogNoisyExpectedHypervolumeImprovement(
            ref_point=origin, X_baseline=_tensor(rows), objective=several, cache_root=False, **common
        )
    partitioning: Any = FastNondominatedPartitioning(ref_point=origin, Y=torch.from_numpy(values))
    return qLogExpectedHypervolumeImprovement(ref_point=origin, partitioning=partitioning, objective=several, **common)


def _tensor(genotypes: Genotypes) -> Tensor:
    return torch.from_numpy(genotypes.astype(np.float64))


def _rows(genes: Tensor) -> Genotypes:
    """Genes of any shape ``(..., D)`` as rows ``(N, D)``."""
    rows: Genotypes = genes.detach().reshape(-1, genes.shape[-1]).numpy().round().astype(GENE_DTYPE)
    return rows
