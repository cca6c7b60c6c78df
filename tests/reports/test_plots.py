"""Plots: what is drawn for which study, and that odd values do not break them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from gnomon.records import Measurement, ModelRow, StudySummary, TrialRow
from gnomon.reports.figure import SCALE, drawing, plain, spans_decades
from gnomon.reports.front_plot import _draw_trials, cost_metrics, draw_front
from gnomon.reports.importance_plot import importance_bars
from gnomon.reports.labels import Label, draw_labels
from gnomon.reports.plots import write_plots
from gnomon.reports.quality_axis import _ErrorScale, outlier_floor, set_quality_axis


def size(path: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return width, height


def test_two_pixels_per_css_pixel(rich: StudySummary, tmp_path: Path) -> None:
    assert draw_front(rich, "latency_ms", tmp_path / "front.png")
    assert size(tmp_path / "front.png") == (900 * SCALE, 540 * SCALE)


def test_each_cost_of_the_objective_has_its_front(rich: StudySummary, tmp_path: Path) -> None:
    values, directions = ("quality", "latency_ms", "macs"), ("maximize", "minimize", "minimize")
    trials = tuple(replace(t, values=(*t.values, 2e6 + 1e5 * t.number) if t.values else ()) for t in rich.trials)
    summary = replace(rich, values=values, directions=directions, trials=trials)
    assert cost_metrics(summary) == ("latency_ms", "macs")
    names = [plot.name for plot in write_plots(summary, tmp_path) if plot.path is not None]
    assert names[:2] == ["front", "front_macs"]
    assert (tmp_path / "front_macs.png").is_file()


def test_latency_is_left_out_where_nothing_depends_on_it(rich: StudySummary) -> None:
    without = replace(rich, values=("quality", "parameters"), limit_ms=None)
    assert cost_metrics(without) == ("parameters",)
    assert cost_metrics(replace(rich, values=("quality", "parameters"))) == ("latency_ms", "parameters")
    assert cost_metrics(replace(rich, values=("reward",), limit_ms=None)) == ("latency_ms",)


@pytest.mark.parametrize("quality", [0.0, 1.0, float("nan"), -3.5, 73.0])
def test_one_trial_of_any_quality(quality: float, empty: StudySummary, tmp_path: Path) -> None:
    trial = TrialRow(0, "1", "complete", quality, 0.2, 0.01, (quality, 0.2), on_front=True)
    drawn = draw_front(replace(empty, trials=(trial,), limit_ms=0.1), "latency_ms", tmp_path / "front.png")
    assert drawn == (quality == quality)


def test_nothing_to_draw_writes_nothing(empty: StudySummary, tmp_path: Path) -> None:
    plots = write_plots(empty, tmp_path)
    assert all(plot.path is None and plot.missing for plot in plots)
    assert list(tmp_path.iterdir()) == []


def test_failed_measurements_only(
    empty: StudySummary,
    make_model: Callable[..., ModelRow],
    make_measurement: Callable[..., Measurement],
    tmp_path: Path,
) -> None:
    broken = make_model(0, 0.2, 0.9, accepted=False, measurement=make_measurement(1.0, "failed"))
    plots = write_plots(replace(empty, models=(broken,), finished=True), tmp_path)
    assert all(plot.path is None for plot in plots)


def test_error_scale_only_where_scores_crowd() -> None:
    with drawing() as (_, axes):
        assert set_quality_axis(axes, [0.8, 0.97, 0.995, 1.0], is_share=True)
        assert axes.get_ylim()[0] < 0.8 < 1.0 <= axes.get_ylim()[1] + 1e-3
        labels = [axes.yaxis.get_major_formatter()(tick, None) for tick in axes.get_yticks()]
        assert "99.5" in labels
        assert labels[-1] == "100"
    with drawing() as (_, axes):
        assert not set_quality_axis(axes, [0.4, 0.5, 0.6], is_share=True)
        assert not set_quality_axis(axes, [1.0, 1.0], is_share=True)
        assert not set_quality_axis(axes, [10.0, 73.0], is_share=False)


def test_error_scale_is_its_own_inverse_and_monotone() -> None:
    scale = _ErrorScale(0.005)
    quality = np.array([0.0, 0.5, 0.9, 0.99, 0.995, 0.997, 1.0, 1.001])
    assert scale.backward(scale.forward(quality)) == pytest.approx(quality)
    assert (np.diff(scale.forward(quality)) > 0).all()


def test_outliers_are_few_and_far_below() -> None:
    crowd = list(np.linspace(0.55, 0.65, 20))
    assert outlier_floor([*crowd, 0.01]) == pytest.approx(0.55)
    assert outlier_floor(crowd) is None
    assert outlier_floor([0.01, 0.6, 0.6]) is None
    assert outlier_floor([0.6] * 20 + [0.1]) is None


def test_outliers_end_at_the_edge(recorded: StudySummary, tmp_path: Path) -> None:
    trials = tuple(replace(t, quality=0.01 if t.number < 3 else 0.6 + 0.0001 * t.number) for t in recorded.trials[:40])
    assert draw_front(replace(recorded, trials=trials), "latency_ms", tmp_path / "front.png")


def test_labels_of_near_points_do_not_cover_each_other() -> None:
    with drawing() as (figure, axes):
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        draw_labels(axes, [Label(f"M{i}", 0.5 + 0.002 * i, 0.5, "black") for i in range(5)])
        FigureCanvasAgg(figure).draw()
        boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_log_range() -> None:
    assert spans_decades([0.1, 2.0])
    assert not spans_decades([0.1, 0.5])
    assert not spans_decades([0.0, 5.0])
    assert not spans_decades([3.0])
    assert plain(2_500_000) == "2.5 M"
    assert plain(0.05) == "0.05"


def test_importance_adds_up_what_does_not_fit(rich: StudySummary) -> None:
    bars = importance_bars(replace(rich, importance={f"d{i}": 1.0 / 40 for i in range(40)}))
    assert len(bars) == 16
    assert bars[-1][0] == "all others (25)"
    assert sum(share for _, share in bars) == pytest.approx(1.0)


def test_plots_do_not_touch_a_users_style(rich: StudySummary, tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    write_plots(rich, tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_stopped_trainings_are_marked(rich: StudySummary) -> None:
    from matplotlib.figure import Figure

    dominated = [t for t in rich.trials if t.quality is not None and t.latency_ms is not None and not t.on_front]
    trials = [replace(dominated[0], stopped_at=2.0), *dominated[1:]]
    axes = Figure().subplots()
    _draw_trials(axes, rich, trials, "latency_ms")
    shown = {str(c.get_label()): len(c.get_offsets()) for c in axes.collections}
    assert shown.pop("training stopped early, quality predicted") == 1
    assert sum(shown.values()) == len(trials) - 1
