"""The study in one sentence, and the sentences that explain its figures."""

from __future__ import annotations

from typing import Literal

from ..records import Setting, StudySummary
from .format import QualityFormat, counted, limit_ms, milliseconds, percent, words
from .rows import measured_ms, model_score, score_split

Tone = Literal["good", "warning", "bad"]

STATISTIC_TEXT = {
    "minimum": "the fastest timed iteration of all processes",
    "p10": "the 10th percentile of the iterations of one process, in the process that was disturbed least",
    "median": "the median of the iterations of one process, in the process that was disturbed least",
    "p90": "the 90th percentile of the iterations of one process, in the process that was disturbed least",
}

VERDICT_TEXT = {
    "good": "the interval is within its target",
    "noisy": "the interval was still too wide when the measuring budget ended",
    "throttled": "the interval was too wide, and the interleaved reference model drifted by more than 10 %",
    "failed": "the model crashed, hung or gave wrong output",
}


def is_published(setting: Setting) -> bool:
    """Whether latencies come from a published table: nothing was timed."""
    return setting.runtime == "recorded"


def place(setting: Setting) -> str:
    """Where latency was taken: device, hardware, threads and precision."""
    if is_published(setting):
        return f"{setting.hardware}, from a published table"
    name = setting.device if setting.hardware in ("", setting.device) else f"{setting.device}, {setting.hardware}"
    threads = "1 thread" if setting.threads == 1 else f"{setting.threads} threads"
    return f"{name} ({threads}, {setting.precision}, batch {setting.workload.batch})"


def headline(summary: StudySummary) -> str:
    """The outcome in one sentence."""
    if not summary.finished:
        return _unfinished(summary)
    accepted = [m for m in summary.models if m.accepted]
    if not accepted:
        return _nothing(summary)
    found = counted(len(accepted), "architectures" if summary.recorded else "models")
    if is_published(summary.setting):
        start = f"{found} checked against the published latencies of {summary.setting.hardware}"
    else:
        start = f"{found} verified on {summary.setting.device}"
    parts = (start, _best(summary), limit_outcome(summary), _doubts(summary))
    return "; ".join(part for part in parts if part) + "."


def _doubts(summary: StudySummary) -> str:
    """How many accepted models were not measured well; empty if all were."""
    found = [m.measurement.verdict for m in summary.models if m.accepted and m.measurement is not None]
    doubtful = [verdict for verdict in VERDICT_TEXT if verdict != "good" and verdict in found]
    return ", ".join(f"{found.count(verdict)} of {len(found)} measurements {verdict}" for verdict in doubtful)


def tone(summary: StudySummary) -> Tone:
    """How the headline is to be read: everything held, with reservations, or no result."""
    accepted = [m for m in summary.models if m.accepted]
    if not accepted:
        return "bad" if summary.finished else "warning"
    clean = all(m.measurement is not None and m.measurement.verdict == "good" for m in accepted)
    return "good" if clean and summary.finished and not _over_limit(summary) else "warning"


def _unfinished(summary: StudySummary) -> str:
    done = sum(t.state == "complete" and t.duplicate_of is None for t in summary.trials)
    text = f"Not finished: {counted(done, 'architectures')} evaluated so far"
    best = max((t.quality for t in summary.trials if t.quality is not None and t.feasible), default=None)
    kind = "recorded" if summary.recorded else "validation"
    if best is not None:
        text += f"; best {kind} {words(summary.metric)} {QualityFormat(summary)(best)}"
    verified = sum(m.accepted for m in summary.models)
    return f"{text}; {counted(verified, 'models') + ' verified' if verified else 'no model verified yet'}."


def _nothing(summary: StudySummary) -> str:
    if summary.models:
        return f"No model was verified: {counted(len(summary.models), 'models')} finalised, all dropped."
    if not any(t.state == "complete" for t in summary.trials):
        return "No model was verified: no evaluation succeeded."
    if not any(t.feasible for t in summary.trials if t.state == "complete"):
        return "No model was verified: no evaluated architecture is predicted to meet the limit."
    return "No model was finalised."


def _best(summary: StudySummary) -> str:
    scored = [(s, m) for m in summary.models if m.accepted and (s := model_score(summary, m)) is not None]
    if not scored:
        return ""
    score, model = max(scored, key=lambda pair: pair[0])
    kind = "recorded" if summary.recorded else score_split(summary)
    latency = measured_ms(model)
    at = "" if latency is None else f" at {milliseconds(latency)}"
    return f"best {QualityFormat(summary)(score)} {kind} {words(summary.metric)}{at}"


def _over_limit(summary: StudySummary) -> int:
    """Accepted models that are measured above the limit."""
    limit = summary.limit_ms
    if limit is None:
        return 0
    latencies = (measured_ms(m) for m in summary.models if m.accepted)
    return sum(latency is not None and latency > limit for latency in latencies)


def limit_outcome(summary: StudySummary) -> str:
    """How often the limit held where it was measured, dropped models included; empty if there is none."""
    if summary.limit_ms is None:
        return ""
    name = f"limit {limit_ms(summary.limit_ms)}"
    accepted = [m for m in summary.models if m.accepted]
    if not accepted:
        return f"{name} not tested on any model"
    over = _over_limit(summary)
    if over:
        return f"{name} exceeded by {over} of {len(accepted)}"
    unmeasured = sum(measured_ms(m) is None for m in accepted)
    measured = [latency for m in summary.models if (latency := measured_ms(m)) is not None]
    kept = sum(latency <= summary.limit_ms for latency in measured)
    text = f"{name} held by {kept} of {len(measured)} measured"
    return text + (f", {unmeasured} not measured" if unmeasured else "")


def limit_text(summary: StudySummary) -> str:
    """The limit with its origin and confidence, for captions; empty if there is none."""
    if summary.limit_ms is None:
        return ""
    origin = f" = {summary.limit_text}" if " of " in summary.limit_text else ""
    return f"limit {limit_ms(summary.limit_ms)}{origin}, to hold with {percent(summary.confidence)} confidence"


def statistic_text(summary: StudySummary) -> str:
    """What one latency figure of this study is, in one sentence."""
    if is_published(summary.setting):
        return "Recorded latency is the value that the published table holds; nothing was timed for this study."
    meaning = STATISTIC_TEXT.get(summary.statistic, "as the device defines it")
    return (
        f"Every latency is the {summary.statistic}: {meaning}. Square brackets hold its 90 % interval, bootstrapped "
        "over processes, not over iterations. Predictor, limit, verification and this report all use the same figure."
    )
