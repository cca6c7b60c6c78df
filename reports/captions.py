"""How each plot is to be read, in two or three sentences beside it."""

from __future__ import annotations

from omegaconf import OmegaConf

from ..records import StudySummary
from .format import words
from .verdict import is_published


def caption(summary: StudySummary, plot: str) -> str:
    """The caption of a plot by its file's name without suffix."""
    if plot.startswith("front"):
        return _front(summary)
    return {
        "predicted_measured": _agreement(summary),
        "hypervolume": "How much of the space of quality and cost the search's front covers after each distinct "
        "evaluation, as a share of the final one. A curve that still climbs at its end says that more evaluations "
        "(study.evaluations) would have helped. Shares of different studies do not compare.",
        "shared_training": _shared_training(summary),
        "importance": f"The share of the variance of {words(summary.metric)} among the evaluated architectures that "
        "each decision explains (fANOVA). It holds for the architectures that were evaluated, not for the whole space.",
    }[plot]


def _shared_training(summary: StudySummary) -> str:
    metric, shared = words(summary.metric), summary.shared_training
    if shared is not None and shared.errors:
        return (
            f"Validation {metric} after each epoch of the trained network from which the search starts, and of it with "
            "the same replacement everywhere. Replacements learnt by themselves, and have not been trained together; "
            "the models that the search hands back have."
        )
    return (
        f"Validation {metric} of the largest and the smallest network with the "
        "shared weights after each epoch, batch norm estimated anew for each. The search ranks architectures by such "
        "figures; the models it hands back are trained from scratch."
    )


def _front(summary: StudySummary) -> str:
    failed = sum(t.state == "failed" for t in summary.trials)
    text = "Small dots are candidates as the search saw them: predicted cost, "
    if summary.recorded:
        text += f"{words(summary.metric)} from a published table. "
    else:
        text += f"validation {words(summary.metric)} {_how(summary)}. "
    latency = "recorded" if is_published(summary.setting) else "measured"
    text += f"Large labelled ones are finalised models: {latency} latency"
    text += "" if latency == "recorded" else " with its 90 % interval"
    if summary.recorded:
        text += "."
    else:
        text += f", test {words(summary.metric)} after full training; validation alone decides which are on the front."
    if summary.limit_ms is not None:
        text += " Beyond the dashed line the latency limit is broken."
    return f"{text} {failed} failed evaluation{'' if failed == 1 else 's'} not shown." if failed else text


def _how(summary: StudySummary) -> str:
    """How the search scored its candidates."""
    if summary.shared_training is None:
        return "after the search's short training"
    config = OmegaConf.create(summary.config)
    epochs = OmegaConf.select(config, "quality.tune_epochs") or OmegaConf.select(config, "quality.finetune_epochs")
    tuned = f", each tuned for {epochs:g} epoch{'' if epochs == 1 else 's'}" if epochs else ""
    return f"with the shared weights{tuned}"


def _agreement(summary: StudySummary) -> str:
    kind = "recorded" if is_published(summary.setting) else "measured"
    return (
        f"On the line a prediction equals the {kind} latency; the band is ±10 %. Grey: reference architectures, each "
        "predicted without its own measurement where the predictor allows, so that the figure is honest. Coloured: "
        "finalised models, which the predictor never saw. Vertical bars are the predicted 90 % interval."
    )
