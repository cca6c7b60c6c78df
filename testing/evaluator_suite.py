"""What every evaluator promises, as tests."""

from __future__ import annotations

import json
import math

import pytest

from ..errors import GnomonError
from ..records import Evaluation
from ..search_spaces import Architecture
from ..tasks import Evaluator
from .task_suite import process_state, without_time


class EvaluatorSuite:
    """Subclass it and give it the fixtures ``evaluator`` and ``architecture``.

    Optional fixture: ``impossible_architecture``, one that cannot be evaluated.
    """

    @pytest.fixture
    def evaluator(self) -> Evaluator:
        """The evaluator under test; keep its evaluations short."""
        raise NotImplementedError("an EvaluatorSuite needs a fixture `evaluator`")

    @pytest.fixture
    def architecture(self) -> Architecture:
        """An architecture that it can evaluate."""
        raise NotImplementedError("an EvaluatorSuite needs a fixture `architecture`")

    @pytest.fixture
    def impossible_architecture(self) -> Architecture | None:
        """An architecture that it cannot evaluate."""
        return None

    def test_name_and_weights(self, evaluator: Evaluator) -> None:
        assert evaluator.name
        assert isinstance(evaluator.has_weights, bool)

    def test_identity_is_json(self, evaluator: Evaluator) -> None:
        assert evaluator.identity()
        assert json.loads(json.dumps(evaluator.identity())) == evaluator.identity()

    def test_identity_stays(self, evaluator: Evaluator, architecture: Architecture) -> None:
        before = evaluator.identity()
        evaluator.evaluate(architecture, seed=0)
        assert evaluator.identity() == before

    def test_evaluation_is_valid(self, evaluator: Evaluator, architecture: Architecture) -> None:
        calls: list[tuple[float, float]] = []
        evaluation = evaluator.evaluate(
            architecture, seed=4, progress=lambda spent, metric: calls.append((spent, metric))
        )
        assert math.isfinite(evaluation.quality)
        assert evaluation.seed == 4
        assert evaluation.budget > 0
        assert evaluation.budget_unit
        assert evaluation.cost_s > 0
        assert all(math.isfinite(value) for value in (*evaluation.metrics.values(), *evaluation.curve))
        assert Evaluation.from_json(evaluation.to_json()) == evaluation
        if evaluation.curve:
            assert evaluation.curve[-1] == evaluation.quality
        if calls:
            assert calls[-1] == (evaluation.budget, evaluation.quality)
            assert [spent for spent, _ in calls] == sorted({spent for spent, _ in calls})

    def test_same_seed_same_result(self, evaluator: Evaluator, architecture: Architecture) -> None:
        first, second = (evaluator.evaluate(architecture, seed=7) for _ in range(2))
        assert without_time(first) == without_time(second)

    def test_evaluations_do_not_disturb_each_other(self, evaluator: Evaluator, architecture: Architecture) -> None:
        first = evaluator.evaluate(architecture, seed=7)
        evaluator.evaluate(architecture, seed=8)
        assert without_time(evaluator.evaluate(architecture, seed=7)) == without_time(first)

    def test_evaluating_leaves_the_process_as_it_was(self, evaluator: Evaluator, architecture: Architecture) -> None:
        before = process_state()
        evaluator.evaluate(architecture, seed=0)
        assert process_state() == before

    def test_cost_hint(self, evaluator: Evaluator) -> None:
        hint = evaluator.cost_hint_s()
        assert hint is None or (math.isfinite(hint) and hint >= 0)

    def test_impossible_architecture_is_a_clear_error(
        self, evaluator: Evaluator, impossible_architecture: Architecture | None
    ) -> None:
        if impossible_architecture is None:
            pytest.skip("no fixture `impossible_architecture`")
        with pytest.raises(GnomonError):
            evaluator.evaluate(impossible_architecture, seed=0)
