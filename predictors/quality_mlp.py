"""Quality by multilayer perceptrons: regression of it, or comparison of two networks.

Shapes: N architectures, E members, K pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import PredictorError
from .batched_mlp import MLP, Loss, train_mlps
from .held_out import BoolArray, FloatArray, HeldOutEnsemble
from .quality_features import ExtraColumns, SeenOf

if TYPE_CHECKING:
    import torch

    from ..search_spaces import Genotypes, SearchSpace


class MLPQuality(HeldOutEnsemble):
    """Perceptrons of equal shape, trained together on normal scores of quality.

    Args:
        space, seed, seen, extra, members: See :class:`~gnomon.predictors.held_out.HeldOutEnsemble`.
        hidden: Widths of the hidden layers.
        steps: Of Adam, on all evaluations at once; the learning rate falls to 0.
        learning_rate: Of Adam.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        seen: SeenOf = "both",
        extra: ExtraColumns | None = None,
        members: int = 8,
        hidden: Sequence[int] = (64, 64),
        steps: int = 200,
        learning_rate: float = 0.01,
    ) -> None:
        super().__init__(space, seed=seed, seen=seen, extra=extra, members=members)
        if not hidden or min(hidden) < 1:
            raise PredictorError(
                "no widths", field="hidden", value=list(hidden), allowed="one or more, each at least 1"
            )
        if steps < 1:
            raise PredictorError("too few", field="steps", value=steps, allowed="at least 1")
        if not learning_rate > 0:
            raise PredictorError("not a learning rate", field="learning_rate", value=learning_rate, allowed="above 0")
        self.hidden, self.steps, self.learning_rate = tuple(hidden), steps, learning_rate

    def train(self, features: FloatArray, scores: FloatArray, kept: BoolArray) -> Sequence[MLP]:
        """See :meth:`HeldOutEnsemble.train`."""
        return train_mlps(
            features,
            scores,
            kept,
            hidden=self.hidden,
            steps=self.steps,
            batch=len(scores),
            learning_rate=self.learning_rate,
            seed=self.seed,
            decay=True,
            alike=False,
            loss=self.loss(scores),
        )

    def loss(self, scores: FloatArray) -> Loss | None:
        """What is minimised in place of the squared error."""
        return None


class ComparatorQuality(MLPQuality):
    """Learns which of two networks is better, and ranks by what it has learnt.

    BRP-NAS (Dudziak et al. 2020, 2007.08668) trains a network that sees two architectures and says
    which is better, since a search needs the order only and N evaluations make N² pairs. Here both
    go through the same perceptron, and the difference of its answers is the log odds that the
    first is better (Bradley and Terry 1952; RankNet, Burges et al. 2005): antisymmetric and
    transitive by construction, and to rank N networks takes N evaluations of it, not N².

    For means and deviations in the unit of quality, the answers are brought to normal scores by
    the line through the origin that fits what members say of networks that they did not see.

    Args:
        pairs: K, drawn anew in each step.
        space, seed, seen, extra, members, hidden, steps, learning_rate: See :class:`MLPQuality`.
    """

    own_scale: ClassVar[bool] = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        seen: SeenOf = "both",
        extra: ExtraColumns | None = None,
        members: int = 8,
        hidden: Sequence[int] = (64, 64),
        steps: int = 200,
        learning_rate: float = 0.01,
        pairs: int = 1024,
    ) -> None:
        super().__init__(
            space,
            seed=seed,
            seen=seen,
            extra=extra,
            members=members,
            hidden=hidden,
            steps=steps,
            learning_rate=learning_rate,
        )
        if pairs < 1:
            raise PredictorError("too few", field="pairs", value=pairs, allowed="at least 1")
        self.pairs = pairs

    def better(self, first: Genotypes, second: Genotypes) -> FloatArray:
        """Probability that each of ``first`` is better than the one of ``second`` beside it ``(N,)``.

        Raises:
            PredictorError: Before :meth:`fit`.
        """
        odds = self.answers(first) - self.answers(second)
        return np.asarray((1.0 / (1.0 + np.exp(-odds))).mean(axis=0))

    def wins(self, genotypes: Genotypes, reference: Genotypes) -> FloatArray:
        """Share of ``reference`` networks ``(R, D)`` that each of ``(N, D)`` is expected to beat ``(N,)``."""
        answers, others = self.answers(genotypes), self.answers(reference)
        shares = [(1.0 / (1.0 + np.exp(other[:, None] - answers))).mean(axis=0) for other in others.T]
        return np.asarray(np.mean(shares, axis=0))

    def loss(self, scores: FloatArray) -> Loss | None:
        """See :meth:`MLPQuality.loss`."""
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        n, pairs = len(scores), self.pairs

        def logistic(outputs: torch.Tensor, targets: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
            first, second = torch.randint(n, (2, pairs), generator=generator)
            sign = torch.sign(targets[first] - targets[second])
            odds = outputs[:, first] - outputs[:, second]
            weight = seen[:, first] * seen[:, second] * sign.abs()
            losses = torch.nn.functional.softplus(-sign * odds) * weight
            return (losses.sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)).sum()

        return logistic
