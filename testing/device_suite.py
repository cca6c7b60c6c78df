"""What every device must do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ..devices import Device, Protocol
from ..records import Measurement
from ..search_spaces import Deployable, Graph

UNAVAILABLE_LIMIT_S = 5.0
"""Asking whether a device can run must not start it."""
SLOWER = 2.0
"""Ten times the work takes at least twice as long: overheads may hide a part, not most, of it."""


class DeviceSuite:
    """The contract of :class:`~gnomon.devices.Device`. Subclass it and give these fixtures:

    * ``device``;
    * ``deployables``: at least three that the device accepts, of one workload, the last of which
      does at least ten times the work of the first;
    * ``protocol``: preferably a quick one;
    * ``variants`` (optional): devices that differ from ``device`` in what changes latency, threads
      above all;
    * ``broken`` (optional): a deployable that cannot be measured.
    """

    @pytest.fixture
    def protocol(self) -> Protocol:
        return Protocol(processes=2, min_processes=2, warmup_runs=3, min_runs=10, time_cap_s=0.03, target_interval=0.5)

    @pytest.fixture
    def variants(self) -> Sequence[Device]:
        return ()

    @pytest.fixture
    def broken(self, device: Device, deployables: Sequence[Deployable], tmp_path: Path) -> Deployable:
        """A damaged file for devices that take files, else an architecture that its space lacks."""
        model = deployables[0]
        if device.accepts == "onnx":
            path = tmp_path / "damaged.onnx"
            path.write_bytes(b"this is not an ONNX model")
            graphs = {name: Graph(g.inputs, g.outputs, onnx_path=path) for name, g in model.graphs.items()}
            return replace(model, name="broken", graphs=graphs)
        if model.architecture is None:
            pytest.fail(f"a device that accepts {device.accepts!r} is tested with architectures")
        architecture = replace(model.architecture, key="broken", config={"no such decision": 0})
        return replace(model, name="broken", architecture=architecture)

    def test_unavailable_is_cheap(self, device: Device) -> None:
        start = time.perf_counter()
        reason = type(device).unavailable()
        assert time.perf_counter() - start < UNAVAILABLE_LIMIT_S
        assert reason is None, f"the suite needs a device that can run here: {reason}"

    def test_setting_is_an_identity(
        self, device: Device, deployables: Sequence[Deployable], variants: Sequence[Device]
    ) -> None:
        workload = deployables[0].workload
        setting = device.setting(workload)
        assert setting.id == device.setting(workload).id, "the same setting has two identities"
        assert type(setting).from_json(setting.to_json()).id == setting.id, "the identity is lost on disk"
        assert setting.workload == workload
        others = [device.setting(replace(workload, batch=workload.batch + 1))]
        others += [variant.setting(workload) for variant in variants]
        ids = {setting.id, *(other.id for other in others)}
        assert len(ids) == len(others) + 1, "settings that differ in workload or threads share an identity"

    def test_measurements_are_sound_and_in_order(
        self, device: Device, deployables: Sequence[Deployable], protocol: Protocol
    ) -> None:
        for models in (deployables, deployables[::-1]):
            results = list(device.measure(models, protocol, seed=1))
            assert [m.architecture for m in results] == [d.name for d in models], "not in the order of the deployables"
            for model, result in zip(models, results, strict=True):
                check_sound(result)
                assert result.setting == device.setting(model.workload)
                assert result.protocol == protocol.id
                assert result.statistic == device.statistic

    def test_work_takes_time(self, device: Device, deployables: Sequence[Deployable], protocol: Protocol) -> None:
        fast, slow = device.measure([deployables[0], deployables[-1]], protocol)
        assert slow.latency_ms > SLOWER * fast.latency_ms, "ten times the work takes less than twice as long"

    def test_a_broken_model_costs_one_measurement(
        self, device: Device, deployables: Sequence[Deployable], protocol: Protocol, broken: Deployable
    ) -> None:
        first, failed, last = device.measure([deployables[0], broken, deployables[1]], protocol)
        check_sound(first)
        check_sound(last)
        assert failed.verdict == "failed", "a model that cannot run has a latency"
        assert failed.architecture == broken.name
        assert failed.error, "a failure without a reason"
        assert "\n" not in failed.error, "a reason of several lines"
        assert failed.median is None


def check_sound(result: Measurement) -> None:
    """Asserts that a measurement that did not fail is complete and consistent."""
    assert result.verdict in ("good", "noisy", "throttled"), result.error
    values = (result.minimum, result.p10, result.median, result.p90)
    assert all(value is not None and value > 0 for value in values), f"a statistic is missing or not positive: {values}"
    assert sorted(values) == list(values), f"not minimum <= p10 <= median <= p90: {values}"  # type: ignore[type-var]
    if result.interval is not None:
        low, high = result.interval
        assert low <= result.latency_ms <= high, "the interval does not hold the statistic"
    assert result.process_values, "no value of any process"
    assert result.fingerprint.runtime, "no provenance"
    assert result.fingerprint.cpu, "no provenance"
    assert result.timestamp, "no time of measuring"
    assert Measurement.from_json(result.to_json()) == result, "the measurement is changed by writing and reading"
