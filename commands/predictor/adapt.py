"""Adapt a predictor to one device from a few latencies, measured now or before; write the model.

gnomon predictor adapt bundle=bundles/gnomon-nasbench201 from=references.json to=adapted/board
gnomon predictor adapt space=mobile_cnn device=onnxruntime n=10 refine=5     measures here, now
gnomon predictor adapt bundle=BUNDLE device=recorded device.column=raspi4    a published device
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError, DeviceError, MeasurementError, PredictorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig

    from ...cli import Options
    from ...devices import Device, Protocol
    from ...predictors import LatencyModel, LatencyPredictor
    from ...records import Measurement
    from ...search_spaces import Genotypes
    from ._making import Made

CONFIG = "predictor_adapt"
PLANS = True
SAMPLE = 2000
"""Random architectures that the width of the interval is averaged over."""


@dataclass(frozen=True)
class Measured:
    """Latencies ``(N,)`` in ms of architectures ``(N, D)``, and where they come from.

    Args:
        name: Of the setting, for people.
        setting: Its identity, or the name where nothing more is known.
    """

    genotypes: Genotypes
    latencies_ms: npt.NDArray[np.float64]
    name: str
    setting: str
    statistic: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def run(config: DictConfig, options: Options) -> int:
    """Adapts, writes the model and prints how far it can be trusted."""
    from ...predictors import Provenance, SavableLatencyModel, save_model
    from ...predictors.predictor_bundle import class_path
    from ._latencies import space_of
    from ._making import make_predictor, stamp

    source = None if config["from"] is None else Path(config["from"])
    if (source is None) == (config.get("device") is None):
        raise ConfigError(
            "latencies are needed, from a file or a device", field="from", value=config["from"],
            allowed="from=FILE.csv, from=FILE.json, or device=NAME; one of them",
        )  # fmt: skip
    made = make_predictor(config, options, None if source is None else space_of(source))
    if options.plan:
        _print_plan(config, made, options)
        return 0
    measured = _from_file(source, made) if source is not None else _from_device(config, made)
    model = made.predictor.adapt(measured.genotypes, measured.latencies_ms)
    report = trust(made.predictor, model, measured)
    if not isinstance(model, SavableLatencyModel):
        raise PredictorError("its models cannot be saved", field="predictor", value=made.option)
    provenance = Provenance(
        measured.setting,
        class_path(made.predictor),
        tuple(made.space.keys(measured.genotypes)),
        tuple(measured.latencies_ms.tolist()),
        measured.statistic,
        {
            **measured.details,
            **stamp(),
            "name": measured.name,
            "config": dict(made.node),
            "bundle": made.bundle,
            "trust": report,
        },
    )
    to = Path(config.to)
    save_model(to, model, provenance)
    if options.json:
        print(json.dumps({"folder": str(to), "setting": measured.name, "predictor": made.option, **report}))
    else:
        _print(to, made, measured, report)
    return 0


# ---- Latencies --------------------------------------------------------------------------------


def _from_file(path: Path, made: Made) -> Measured:
    from ._latencies import read_latencies

    genotypes, latencies = read_latencies(path, made.space)
    return Measured(genotypes, latencies, path.stem, path.stem, details={"file": str(path)})


def _from_device(config: DictConfig, made: Made) -> Measured:
    """Measures the references, then where the predictor is least sure; what fails is left out, if
    enough remains.

    Raises:
        MeasurementError: If too few could be measured.
    """
    from ...records.store import MeasurementStore
    from ...search.measuring import measure_all
    from .._values import checked_integer

    device, protocol = _device(config)
    seed = checked_integer(config.seed, "seed", 0)
    refine = checked_integer(config.refine, "refine", 0)
    store = MeasurementStore(Path(config.store).absolute())

    def measure(rows: Genotypes, progress: Any) -> list[Measurement]:
        deployables = [made.space.deployable(made.space.config(row)) for row in rows]
        return measure_all(device, protocol, store, deployables, seed=seed, progress=progress)

    rows = made.predictor.references(checked_integer(config.n, "n", 1), seed=seed)
    with _bar() as progress:
        results = measure(rows, progress)
    good = [i for i, m in enumerate(results) if m.verdict != "failed"]
    for step in range(refine if len(good) >= made.predictor.minimum else 0):
        latencies = np.array([results[i].latency_ms for i in good])
        row = _least_sure(made.predictor, rows[good], latencies, exclude=rows, seed=(seed, step))
        if row is None:
            break
        rows = np.concatenate([rows, row[None]])
        results += measure(row[None], None)
        good = [i for i, m in enumerate(results) if m.verdict != "failed"]
    failed = [f"{m.architecture}: {m.error}" for m in results if m.verdict == "failed"]
    if len(good) < made.predictor.minimum:
        raise MeasurementError(
            f"{len(failed)} of {len(results)} measurements failed, and {made.predictor.minimum} are needed; "
            f"the first: {failed[0] if failed else 'n is too small'}"
        )
    first = results[good[0]]
    details = {"setting": first.setting.to_dict(), "fingerprint": first.fingerprint.to_dict(), "failed": failed}
    latencies = np.array([results[i].latency_ms for i in good])
    return Measured(rows[good], latencies, first.setting.device, first.setting.id, first.statistic, details)


def _least_sure(
    predictor: LatencyPredictor,
    genotypes: Genotypes,
    latencies_ms: npt.NDArray[np.float64],
    *,
    exclude: Genotypes,
    seed: tuple[int, int],
) -> Genotypes | None:
    """Of random architectures the one ``(D,)`` with the largest relative deviation, given what was
    measured; None if every one of them is in ``exclude``."""
    pool = predictor.space.sample(SAMPLE, np.random.default_rng(seed))
    pool = pool[~(pool[:, None] == exclude[None]).all(axis=2).any(axis=1)]
    if not len(pool):
        return None
    mean, deviation = predictor.adapt(genotypes, latencies_ms).predict(pool)
    row: Genotypes = pool[int(np.argmax(deviation / mean))]
    return row


def _device(config: DictConfig) -> tuple[Device, Protocol]:
    from ...search.instantiate import instantiate

    plugins = list(config.plugins)
    device: Device = instantiate(config.device, "device", plugins)
    reason = type(device).unavailable()
    if reason is not None:
        raise DeviceError(f"cannot run here: {reason}", field="device", value=device.name)
    protocol: Protocol = instantiate(config.protocol, "protocol", plugins)
    return device, protocol


def _bar() -> Any:
    from ._progress import counted

    return counted("reference latencies")


# ---- How far to trust it ----------------------------------------------------------------------


def trust(predictor: LatencyPredictor, model: LatencyModel, measured: Measured) -> dict[str, Any]:
    """Errors on each measurement when adapted from all others, and the width of the interval.

    Returns:
        ``measurements``; ``half_width_90``: mean half-width of the 90 % interval over random
        architectures, as a share of the prediction; and, where enough is left to adapt from, the
        leave-one-out errors as shares of the measured latency: their mean, the greatest, the share
        within 10 %, and the share of measurements within their 90 % interval.
    """
    from ...predictors import leave_one_out
    from ...predictors.evaluate import Z_90

    mean, deviation = model.predict(predictor.space.sample(SAMPLE, np.random.default_rng(0)))
    report: dict[str, Any] = {
        "measurements": len(measured.latencies_ms),
        "half_width_90": float((Z_90 * deviation / mean).mean()),
        "leave_one_out": None,
    }
    distinct = len(np.unique(measured.genotypes, axis=0))
    if distinct > predictor.minimum:
        left_out, left_out_std = leave_one_out(predictor, measured.genotypes, measured.latencies_ms)
        error = np.abs(left_out - measured.latencies_ms)
        relative = error / measured.latencies_ms
        report["leave_one_out"] = {
            "mean_error": float(relative.mean()),
            "greatest_error": float(relative.max()),
            "within_10_percent": float((relative <= 0.1).mean()),
            "coverage_90": float((error <= Z_90 * left_out_std).mean()),
            "architectures": [
                {"architecture": key, "measured_ms": float(ms), "predicted_ms": float(m), "std_ms": float(s)}
                for key, ms, m, s in zip(
                    predictor.space.keys(measured.genotypes), measured.latencies_ms, left_out, left_out_std, strict=True
                )
            ],
        }
    return report


# ---- Printing ---------------------------------------------------------------------------------


def _print_plan(config: DictConfig, made: Made, options: Options) -> None:
    seconds = None
    n = 0
    if config["from"] is None:
        device, protocol = _device(config)
        n = int(config.n) + int(config.refine)
        seconds = 0.0 if device.accepts == "architecture" else n * protocol.time_cap_s * protocol.processes
    if options.json:
        print(json.dumps({"predictor": made.option, "measurements": n, "measuring_s": seconds, "folder": config.to}))
        return
    what = (
        f"latencies from {config['from']}" if seconds is None else f"{n} measurements, about {seconds:.0f} s of timing"
    )
    print(f"{made.option} on {made.space.name}: {what}; the model would be written to {config.to}")


def _print(to: Path, made: Made, measured: Measured, report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from ...predictors.evaluate import Z_90

    left_out = report["leave_one_out"]
    for failed in measured.details.get("failed", ()):
        print(f"could not be measured: {failed}")
    if left_out is not None:
        print(f"{made.option} on {measured.name}: each measurement (ms), predicted from all others")
        table = Table()
        table.add_column("architecture", overflow="fold")
        for column in ("measured", "predicted", "90 % interval", "error"):
            table.add_column(column, justify="right")
        for a in left_out["architectures"]:
            half = Z_90 * a["std_ms"]
            low, high = max(a["predicted_ms"] - half, 0.0), a["predicted_ms"] + half
            error = 100 * (a["predicted_ms"] / a["measured_ms"] - 1)
            table.add_row(
                a["architecture"],
                f"{a['measured_ms']:.4g}",
                f"{a['predicted_ms']:.4g}",
                f"{low:.4g} to {high:.4g}",
                f"{error:+.1f} %",
            )
        Console().print(table)
        print(
            f"leave-one-out error: {100 * left_out['mean_error']:.1f} % on average, at most "
            f"{100 * left_out['greatest_error']:.1f} %; {100 * left_out['coverage_90']:.0f} % lie in their 90 % "
            "interval"
        )
    else:
        print(f"{report['measurements']} measurements are too few to leave one out")
    print(f"90 % interval of a new architecture: ±{100 * report['half_width_90']:.1f} % on average")
    print(f"model: {to} (gnomon.predictors.load_model; gnomon predictor evaluate model={to} from=FILE)")
