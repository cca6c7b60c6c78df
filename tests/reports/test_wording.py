"""What numbers and sentences say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from gnomon.records import Measurement, ModelRow, StudySummary
from gnomon.reports.agreement_plot import Pair, agreement
from gnomon.reports.format import (
    QualityFormat,
    byte_size,
    count,
    counted,
    duration,
    significant,
    with_std,
)
from gnomon.reports.html_report import _unbroken
from gnomon.reports.pareto import front_mask, staircase
from gnomon.reports.rows import labelled_models, model_score, score_split
from gnomon.reports.verdict import headline, limit_outcome, limit_text, tone


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (0.0, "0"),
        (None, "–"),
        (float("nan"), "–"),
        (3e-7, "3.00e-07"),
    ],
)
def test_significant(value: float | None, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("value", "std", "text"),
    [
        (0.21534, 0.00903, "0.2153 ± 0.0090"),
        (20.2, 0.84, "20.20 ± 0.84"),
        (300.0, 25.0, "300 ± 25"),
        (1.5, 0.0, "1.50"),
    ],
)
def test_with_std(value: float, std: float, text: str) -> None:
    assert with_std(value, std) == text


def test_units() -> None:
    assert count(1_240_000) == "1.24 M"
    assert count(12) == "12"
    assert byte_size(8 * 2**30) == "8.00 GiB"
    assert byte_size(0) == "0 B"
    assert duration(59.99) == "60.0 s"
    assert duration(185) == "3 min 05 s"
    assert duration(7800) == "2 h 10 min"
    assert counted(1, "failures") == "1 failure"
    assert counted(0, "failures") == "0 failures"


def test_numbers_keep_their_units_on_the_line() -> None:
    assert _unbroken("98.6 % at 0.2 ms [0.1, 0.2], 4 models") == "98.6\u00a0% at 0.2\u00a0ms [0.1,\u00a00.2], 4 models"


def test_share_is_a_percentage_only_within_zero_and_one(rich: StudySummary) -> None:
    assert QualityFormat(rich)(0.98321) == "98.32 %"
    of_hundred = replace(rich, models=(), trials=(replace(rich.trials[0], quality=73.4),))
    assert QualityFormat(of_hundred)(73.4) == "73.40"
    assert QualityFormat(replace(rich, metric="negative_loss"))(0.5) == "0.5000"


def test_limit_exceeded_is_said(
    rich: StudySummary, make_model: Callable[..., ModelRow], make_measurement: Callable[..., Measurement]
) -> None:
    late = make_model(9, 0.5, 0.9)
    summary = replace(rich, models=(*rich.models[:3], late))
    assert limit_outcome(summary) == "limit 0.4 ms exceeded by 1 of 4"
    assert tone(summary) == "warning"
    good = replace(rich, models=rich.models[:3])
    assert limit_outcome(good) == "limit 0.4 ms held by 3 of 3 measured"
    assert tone(good) == "good"
    assert tone(rich) == "warning"  # one of its models was measured with verdict noisy
    assert tone(replace(rich, models=())) == "bad"


def test_no_limit_no_word_of_it(rich: StudySummary) -> None:
    summary = replace(rich, limit_ms=None, limit_text="no latency limit")
    assert limit_text(summary) == ""
    assert "limit" not in headline(summary)


def test_absolute_limit_is_not_said_twice(rich: StudySummary) -> None:
    text = limit_text(replace(rich, limit_ms=2.0, limit_text="2 ms"))
    assert text == "limit 2 ms, to hold with 90 % confidence"


def test_nothing_verified_says_why(rich: StudySummary) -> None:
    infeasible = tuple(replace(t, feasible=False) for t in rich.trials if t.state == "complete")
    assert "no evaluated architecture is predicted" in headline(replace(rich, models=(), trials=infeasible))
    failed = (rich.trials[7],)
    assert "no evaluation succeeded" in headline(replace(rich, models=(), trials=failed))


def test_unfinished_names_the_best(rich: StudySummary) -> None:
    best = max(t.quality for t in rich.trials if t.quality is not None and t.feasible)
    text = headline(replace(rich, models=(), finished=False))
    assert text.startswith("Not finished: 22 architectures evaluated so far")
    assert f"{100 * best:.2f} %" in text


def test_score_split(rich: StudySummary, recorded: StudySummary) -> None:
    assert score_split(rich) == "test"
    assert score_split(recorded) == "validation"
    assert model_score(recorded, recorded.models[0]) == recorded.models[0].validation["quality"]


def test_labels_follow_latency_and_put_dropped_last(rich: StudySummary) -> None:
    labels = labelled_models(replace(rich, models=rich.models[::-1]))
    assert [name for name, _ in labels] == ["M1", "M2", "M3", "M4", "M5", "M6"]
    assert [m.accepted for _, m in labels] == [True] * 4 + [False] * 2
    assert labels[0][1] == rich.models[0]


def test_agreement_figures() -> None:
    pairs = [Pair("", 1.0, 1.05, 0.1, 1, 1), Pair("", 2.0, 2.4, 0.1, 2, 2), Pair("", 4.0, 4.0, 0.1, 4, 4)]
    found = agreement(pairs)
    assert found is not None
    assert (found.n, found.within, found.covered) == (3, 2, 2)
    assert found.mape == pytest.approx((0.05 + 0.2 + 0.0) / 3)
    assert found.spearman == pytest.approx(1.0)
    assert agreement([]) is None
    assert agreement(pairs[:2]).spearman is None  # type: ignore[union-attr]


def test_front_and_staircase() -> None:
    cost, quality = np.array([3.0, 1.0, 2.0, 1.0, 4.0]), np.array([0.8, 0.5, 0.4, 0.5, 0.9])
    assert front_mask(cost, quality).tolist() == [True, True, False, False, True]
    x, y = staircase(cost, quality)
    assert x.tolist() == [1.0, 3.0, 4.0]
    assert y.tolist() == [0.5, 0.8, 0.9]
