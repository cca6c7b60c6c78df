"""How a classifier is trained: optimiser, schedule, regularisation, augmentation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import ConfigError

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("one_cycle", "cosine", "constant")


@dataclass(frozen=True)
class TrainingSettings:
    """A training recipe; the defaults are tuned for small CNNs on a few thousand 28x28 images.

    Args:
        optimizer: ``adamw`` or ``sgd`` (Nesterov).
        lr: Peak learning rate.
        weight_decay: Decoupled in AdamW; on weights only, not on biases and norms.
        momentum: Of SGD.
        batch_size: Examples a step; an incomplete last batch is left out of an epoch.
        schedule: By step. ``one_cycle`` (Smith and Topin, 1708.07120): cosine up from lr/25 over
            ``warmup`` of the training, cosine down to lr/10,000. ``cosine`` (SGDR, 1608.03983, one
            period): linear up over ``warmup``, cosine down to 0. ``constant``: linear up, then flat.
        warmup: Fraction of all steps.
        label_smoothing: Share of the target that is spread over all classes.
        ema_decay: Decay a step of the averaged weights that are scored and kept; None for none.
        max_grad_norm: Gradients are clipped to this norm; None for none.
        shift: Largest random shift in pixels, in both directions; 0 for none.
        flip: Whether images are mirrored left to right at random.
        time_limit_s: Training stops after the epoch in which this time ends; None for no limit.
            A limit makes results depend on the machine's speed.
    """

    optimizer: str = "adamw"
    lr: float = 2e-2
    weight_decay: float = 0.05
    momentum: float = 0.9
    batch_size: int = 64
    schedule: str = "one_cycle"
    warmup: float = 0.3
    label_smoothing: float = 0.05
    ema_decay: float | None = None
    max_grad_norm: float | None = None
    shift: int = 0
    flip: bool = False
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    "unknown choice", field=f"task.training.{name}", value=getattr(self, name), allowed=allowed
                )
        self._check("lr", self.lr > 0, "a positive number")
        self._check("weight_decay", self.weight_decay >= 0, "a number from 0")
        self._check("momentum", 0 <= self.momentum < 1, "0 to below 1")
        self._check("batch_size", self.batch_size >= 1, "an integer from 1")
        self._check("warmup", 0 <= self.warmup < 1, "0 to below 1")
        self._check("label_smoothing", 0 <= self.label_smoothing < 1, "0 to below 1")
        self._check("ema_decay", self.ema_decay is None or 0 <= self.ema_decay < 1, "0 to below 1, or null")
        self._check("max_grad_norm", self.max_grad_norm is None or self.max_grad_norm > 0, "positive, or null")
        self._check("shift", self.shift >= 0, "an integer from 0")
        self._check("time_limit_s", self.time_limit_s is None or self.time_limit_s > 0, "positive seconds, or null")

    def _check(self, name: str, valid: bool, allowed: str) -> None:
        if not valid:
            raise ConfigError("out of range", field=f"task.training.{name}", value=getattr(self, name), allowed=allowed)

    @classmethod
    def of(cls, settings: Mapping[str, Any] | TrainingSettings | None) -> TrainingSettings:
        """Settings from a config node; what it leaves out takes its default.

        Raises:
            ConfigError: If a key is unknown, or a value of the wrong type or out of range.
        """
        if settings is None:
            return cls()
        if isinstance(settings, TrainingSettings):
            return settings
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ConfigError(
                "unknown key", field=f"task.training.{unknown[0]}", value=settings[unknown[0]], allowed=known
            )
        for name, value in settings.items():
            default = next(f.default for f in fields(cls) if f.name == name)
            _check_type(name, value, default)
        return cls(**settings)

    def without_images(self) -> TrainingSettings:
        """Itself, for data that are no images.

        Raises:
            ConfigError: If an augmentation of images is on.
        """
        for name in ("shift", "flip"):
            value = getattr(self, name)
            if value:
                raise ConfigError("is of images", field=f"task.training.{name}", value=value, allowed="off, for text")
        return self

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON."""
        return asdict(self)

    def lr_at(self, step: int, total_steps: int) -> float:
        """Learning rate of a step (from 0) out of ``total_steps``: a pure function, so that a
        resumed training needs no scheduler state."""
        # The middle of the step, so that the last one does not have a rate of 0.
        done = (step + 0.5) / total_steps
        if done < self.warmup:
            up = done / self.warmup
            return _cosine(self.lr / 25, self.lr, up) if self.schedule == "one_cycle" else self.lr * up
        floors = {"one_cycle": self.lr / 10_000, "cosine": 0.0, "constant": self.lr}
        return _cosine(self.lr, floors[self.schedule], (done - self.warmup) / (1 - self.warmup))


def _check_type(name: str, value: Any, default: Any) -> None:
    expected: tuple[type, ...]
    if isinstance(default, bool):
        expected, allowed = (bool,), "true or false"
    elif isinstance(default, str):
        expected, allowed = (str,), "a name"
    elif isinstance(default, int):
        expected, allowed = (int,), "an integer"
    elif isinstance(default, float):
        expected, allowed = (int, float), "a number"
    else:
        expected, allowed = (int, float, type(None)), "a number, or null"
    is_unwanted_bool = isinstance(value, bool) and bool not in expected
    if is_unwanted_bool or not isinstance(value, expected):
        raise ConfigError("wrong type", field=f"task.training.{name}", value=value, allowed=allowed)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
