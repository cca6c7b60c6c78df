"""The protocol driver: rounds, stopping, progress, refusals; configs and the catalog."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from gnomon.devices import Protocol, local
from gnomon.devices.catalog import discover_devices
from gnomon.devices.fingerprint import machine_fingerprint
from gnomon.devices.isolation import RoundResult
from gnomon.devices.jobs import Quantiles, Sample
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.devices.torch_cpu import TorchCPUDevice
from gnomon.devices.torch_cuda import TorchCUDADevice
from gnomon.errors import ConfigError, DataError, DeviceError

CONF = Path(local.__file__).parent.parent / "conf"


@pytest.fixture
def rounds(monkeypatch):
    """Replaces the child: latencies come from ``values[model]``, one a round; notes each order."""
    orders: list[list[str]] = []
    values: dict[str, list[float]] = {}

    def run_round(job, on_model=None):
        orders.append([model.name for model in job.models])
        result = RoundResult()
        for index, model in enumerate(job.models):
            plan = Quantiles(*[values[model.name].pop(0)] * 4)
            result.samples[index] = Sample(plan, {"main": plan}, 1, 1)
            if on_model:
                on_model(index)
        return result

    monkeypatch.setattr(local, "run_here", run_round)
    return orders, values


def test_rounds_stop_when_all_are_within_their_interval(rounds, onnx_models):
    orders, values = rounds
    values.update(small=[1.0] * 9, middle=[1.0, 2.0, 3.0, 1.0, 1.0] + [1.0] * 9, large=list(range(1, 10)))
    protocol = Protocol(processes=6, min_processes=3)
    small, middle, large = OnnxRuntimeDevice().measure(onnx_models, protocol)
    assert (len(small.process_values), small.verdict) == (3, "good")
    assert (len(middle.process_values), middle.verdict) == (5, "good")
    assert (len(large.process_values), large.verdict) == (6, "noisy")
    assert [len(order) for order in orders] == [3, 3, 3, 2, 2, 1]


def test_order_is_shuffled_by_the_seed(rounds, onnx_models):
    orders, values = rounds
    seen = []
    for seed in (0, 0, 1):
        values.update({d.name: list(range(1, 9)) for d in onnx_models})
        orders.clear()
        list(OnnxRuntimeDevice().measure(onnx_models, Protocol(), seed=seed))
        seen.append(list(itertools.chain(*orders)))
    assert seen[0] == seen[1] != seen[2]
    assert seen[0][:3] != seen[0][3:6] or seen[0][:3] != seen[0][6:9]


def test_progress_is_reported(rounds, onnx_models):
    _, values = rounds
    values.update({d.name: [1.0] * 9 for d in onnx_models})
    reports = []
    list(OnnxRuntimeDevice(on_progress=reports.append).measure(onnx_models, Protocol()))
    assert [(r.round, r.done, r.total) for r in reports] == [(r, d, 3) for r in (1, 2, 3) for d in (1, 2, 3)]


def test_nothing_to_measure(rounds):
    assert list(OnnxRuntimeDevice().measure([], Protocol())) == []


def test_a_missing_file_costs_one_measurement(onnx_models, once):
    lost = replace(onnx_models[0].graphs["main"], onnx_path=Path("none.onnx"))
    models = [replace(onnx_models[0], graphs={"main": lost}), onnx_models[1]]
    failed, fine = OnnxRuntimeDevice().measure(models, once)
    assert failed.verdict == "failed"
    assert "no such file" in failed.error
    assert fine.verdict != "failed"


def test_torch_needs_an_architecture(onnx_models, quick):
    with pytest.raises(DeviceError, match="architecture of a search space"):
        TorchCPUDevice().measure(onnx_models, quick)


def test_a_device_that_is_missing_says_so(onnx_models, quick, monkeypatch):
    monkeypatch.setattr("gnomon.devices.onnxruntime.find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="pip install onnx onnxruntime"):
        OnnxRuntimeDevice().measure(onnx_models, quick)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threads": 0}, r"device\.threads=0.*allowed: 1 to"),
        ({"statistic": "mean"}, r"device\.statistic='mean'.*minimum, p10, median, p90"),
        ({"graph_optimization": "max"}, r"device\.graph_optimization='max'.*none, basic, extended, all"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        OnnxRuntimeDevice(**arguments)


def test_more_threads_than_cores(onnx_models, quick):
    with pytest.raises(ConfigError, match=r"device\.threads=10000.*allowed: 1 to"):
        OnnxRuntimeDevice(threads=10_000).measure(onnx_models, quick)


def test_a_worker_starts_without_torch():
    script = (
        "import sys; import gnomon.devices.worker, gnomon.devices.onnxruntime\n"
        "heavy = {'torch', 'onnx', 'sklearn', 'optuna', 'hydra', 'scipy.stats'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    assert subprocess.run([sys.executable, "-P", "-c", script]).returncode == 0


def test_fingerprint_of_this_machine():
    fingerprint = machine_fingerprint("r 1", 2, "fp32", pinned=True)
    assert fingerprint.cpu
    assert fingerprint.cores == os.cpu_count()
    assert fingerprint.memory_bytes > 2**28
    assert (fingerprint.runtime, fingerprint.threads, fingerprint.pinned, fingerprint.realtime) == (
        "r 1",
        2,
        True,
        False,
    )
    assert type(fingerprint).from_json(fingerprint.to_json()) == fingerprint


# ---- Configs and the catalog ---------------------------------------------------------------


@pytest.mark.parametrize("option", ["default", "pool", "quick", "thorough"])
def test_protocol_configs(option):
    protocol = instantiate(OmegaConf.load(CONF / "protocol" / f"{option}.yaml"))
    assert isinstance(protocol, Protocol)
    if option == "default":
        assert protocol == Protocol()


@pytest.mark.parametrize("option", ["onnxruntime", "torch_cpu", "torch_cuda"])
def test_device_configs_are_the_defaults(option):
    device = instantiate(OmegaConf.load(CONF / "device" / f"{option}.yaml"))
    assert vars(device) == vars(type(device)())


def test_recorded_config_reads_its_table():
    config = OmegaConf.load(CONF / "device" / "recorded.yaml")
    try:
        device = instantiate(config)
    except Exception as error:
        if isinstance(error.__cause__, DataError):
            pytest.skip(f"no tables: {error.__cause__}")
        raise
    assert "raspi4" in device.table.columns


def test_the_catalog_lists_what_is_configured():
    entries = {entry.option: entry for entry in discover_devices()}
    assert set(entries) == {path.stem for path in (CONF / "device").glob("*.yaml")}
    assert entries["onnxruntime"].unavailable is None
    assert entries["onnxruntime"].accepts == "onnx"
    assert entries["torch_cuda"].unavailable == TorchCUDADevice.unavailable()
    assert all(entry.summary for entry in entries.values())


def test_the_catalog_survives_bad_files_of_a_user(tmp_path):
    folder = tmp_path / "device"
    folder.mkdir()
    contents = {
        "missing": "_target_: no.such.Device",
        "nothing": "threads: 1",
        "other": "_target_: gnomon.devices.protocol.Protocol",
        "broken": "a: [",
        "empty": "",
        "list": "[1]",
        "mine": "_target_: gnomon.devices.onnxruntime.OnnxRuntimeDevice",
    }
    for name, text in contents.items():
        (folder / f"{name}.yaml").write_text(text)
    entries = {entry.option: entry for entry in discover_devices([tmp_path])}
    assert "onnxruntime" in entries
    assert [name for name in contents if entries[name].unavailable is None] == ["mine"]
    assert "cannot import" in entries["missing"].unavailable
    assert "not a Device" in entries["other"].unavailable


def test_cuda_says_why_not():
    reason = TorchCUDADevice.unavailable()
    assert reason is None or "CUDA" in reason
