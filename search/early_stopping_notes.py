"""What early stopping did in a study, in words: how much it saved, and how often it was wrong."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from ..records import Evaluation


def early_stopping_notes(frozen: Sequence[FrozenTrial]) -> tuple[str, ...]:
    """One sentence on the trainings that were stopped, and one on those that show how often that was wrong; none
    where nothing was, or would have been, stopped."""
    evaluations = [
        Evaluation.from_dict(t.user_attrs["evaluation"])
        for t in frozen
        if "evaluation" in t.user_attrs and "duplicate_of" not in t.user_attrs
    ]
    stopped = [e for e in evaluations if e.stopped_at is not None]
    audited = [e for e in evaluations if e.stopped_at is None and "to_beat" in e.metrics]
    notes = []
    if stopped:
        whole = max(e.budget for e in evaluations)
        saved = 1 - sum(e.budget for e in evaluations) / (whole * len(evaluations))
        mean = sum(e.budget for e in stopped) / len(stopped)
        notes.append(
            f"{len(stopped)} of {len(evaluations)} trainings were stopped early, after {mean:.3g} of {whole:.3g} "
            f"{stopped[0].budget_unit} on average, which saved {saved:.0%} of all; their quality is what was "
            "predicted for their end."
        )
    if audited:
        wrong = sum(e.quality > e.metrics["to_beat"] for e in audited)
        notes.append(
            f"False stops: {wrong} of {len(audited)}, counted on trainings that ran to their end though the rule "
            "would have stopped them."
        )
    elif stopped:
        notes.append("False stops: not known, no training ran to its end in spite of the rule (quality.audit).")
    return tuple(notes)
