"""Remote devices, through a real ssh server on this machine to a Python that has no gnomon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from gnomon import cli
from gnomon.conf.compose import compose
from gnomon.devices import Protocol, remote, ssh_link
from gnomon.devices.isolation import DeviceLostError
from gnomon.devices.loaded import LoadedDevice
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.devices.recorded import RecordedDevice
from gnomon.devices.remote import RemoteDevice
from gnomon.devices.runner import import_class
from gnomon.devices.ssh_bundle import code_bundle, model_files
from gnomon.devices.ssh_link import SshAddress
from gnomon.devices.torch_cpu import TorchCPUDevice
from gnomon.errors import ConfigError, DeviceError, MeasurementError
from gnomon.records.store import MeasurementStore
from gnomon.search.instantiate import instantiate
from gnomon.search.measuring import measure_all
from gnomon.testing import DeviceSuite

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
import loopback

pytest.importorskip("asyncssh", reason="asyncssh is not installed: pip install gnomon-nas[remote]")
needs_server = pytest.mark.skipif(loopback.MISSING is not None, reason=f"{loopback.MISSING}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = loopback.make_server(tmp_path_factory.mktemp("sshd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return loopback.make_python(tmp_path_factory.mktemp("far") / "env")


@pytest.fixture
def far_tmp(tmp_path):
    return tmp_path / "far-tmp"


@pytest.fixture
def far(server, python, tmp_path, far_tmp):
    """Keyword arguments of a remote device, whose host keeps its temporary files in ``far_tmp``."""
    return server.address(python=str(loopback.make_far(tmp_path, python, far_tmp)))


@pytest.fixture
def awkward(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "doubles"))
    from misbehaving import MisbehavingLocalDevice

    return MisbehavingLocalDevice


@pytest.fixture
def reachable(server):
    yield server
    if server.process is None or server.process.poll() is not None:
        server.start()


def remains(far_tmp: Path, limit_s: float = 10.0) -> list[str]:
    """What is left of the host's folders, after a while at most."""
    end = time.monotonic() + limit_s
    while (found := [str(path) for path in far_tmp.glob("gnomon-remote-*")]) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def unhurried(protocol: Protocol) -> Protocol:
    """So long a time for each model that the next has not begun when something happens after this one."""
    return replace(protocol, time_cap_s=0.5, max_runs=1_000_000, target_error=None)


@needs_server
class TestRemote(DeviceSuite):
    @pytest.fixture
    def device(self, far):
        return RemoteDevice(OnnxRuntimeDevice(), **far)

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self, far):
        threads = OnnxRuntimeDevice()
        threads.threads = 2  # whatever this machine has
        inner = (OnnxRuntimeDevice(graph_optimization="none"), OnnxRuntimeDevice(precision="int8"), threads)
        return [RemoteDevice(device, **far) for device in inner]


# ---- Identity and cleanliness --------------------------------------------------------------


@needs_server
def test_a_host_is_the_device_that_it_would_be_without_ssh(far, far_tmp, onnx_models, once, monkeypatch):
    here = OnnxRuntimeDevice()
    device = RemoteDevice(OnnxRuntimeDevice(), **far)
    (result,) = device.measure(onnx_models[:1], once)
    assert result.setting.id == here.setting(onnx_models[0].workload).id
    assert result.fingerprint.runtime == here.runtime()
    assert result.fingerprint.cores == os.cpu_count()
    assert not remains(far_tmp)
    # What the host says counts, not what this machine is.
    monkeypatch.setattr("gnomon.devices.onnxruntime.cpu_model", lambda: "another processor")
    monkeypatch.setattr("gnomon.devices.local.cpu_model", lambda: "another processor")
    assert device.setting(onnx_models[0].workload).id == result.setting.id


@needs_server
def test_load_is_generated_on_the_host(far, far_tmp, onnx_models, once):
    """One process from the code that was copied there."""
    found = []

    def look(_):
        words = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        found.append(sum(b"gnomon.devices.load\0cpu" in each for each in words))

    loaded = LoadedDevice(RemoteDevice(OnnxRuntimeDevice(), **far, on_progress=look), cpu=1)
    # Two models: the host kills its load as soon as the last one is done, perhaps before this side looks.
    for result in loaded.measure(onnx_models[:2], unhurried(once)):
        assert result.verdict != "failed", result.error
        assert result.setting.options["load"] == {"cpu": 1, "memory": 0}
    assert found[0] >= 1  # another test run's may be there as well
    assert not remains(far_tmp)


@needs_server
def test_the_host_needs_no_gnomon(python):
    script = "import sys; from importlib.util import find_spec; sys.exit(any(map(find_spec, sys.argv[1:])))"
    command = [str(python), "-c", script]
    assert subprocess.run([*command, "gnomon", "psutil", "onnx", "torch"], cwd="/").returncode == 0
    assert subprocess.run([*command, "numpy"], cwd="/").returncode == 1


@needs_server
def test_names_and_paths_reach_no_shell(far, far_tmp, onnx_models, once, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nasty = "a;touch pwned;$(touch pwned)`touch pwned` '\"&|>*?\\.onnx"
    path = tmp_path / nasty
    graph = onnx_models[0].graphs["main"]
    path.write_bytes(graph.onnx_path.read_bytes())
    model = replace(onnx_models[0], name=nasty, graphs={"main": replace(graph, onnx_path=path)})
    (result,) = RemoteDevice(OnnxRuntimeDevice(), **far).measure([model], once)
    assert result.verdict != "failed", result.error
    assert result.architecture == nasty
    places = (Path.home(), tmp_path, far_tmp)
    assert not [place for place in places if (place / "pwned").exists()]
    assert not remains(far_tmp)


@needs_server
def test_the_folder_on_the_host_is_private(far, far_tmp, onnx_models, once):
    modes = []
    device = RemoteDevice(OnnxRuntimeDevice(), **far)
    device.on_progress = lambda _: modes.extend(path.stat().st_mode & 0o777 for path in far_tmp.glob("gnomon-remote-*"))
    list(device.measure(onnx_models[:1], once))
    assert modes == [0o700]


@needs_server
def test_the_hosts_answers_come_back(far, far_tmp, onnx_models):
    inputs = {"input": np.random.default_rng(0).standard_normal((3, 1, 8, 16, 16), dtype=np.float32)}
    answers = RemoteDevice(OnnxRuntimeDevice(), **far).answers(onnx_models[0], inputs)
    expected = OnnxRuntimeDevice().answers(onnx_models[0], inputs)
    assert set(answers) == {"output"}
    np.testing.assert_array_equal(answers["output"], expected["output"])
    assert not remains(far_tmp)


# ---- Who is trusted ------------------------------------------------------------------------


@needs_server
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("no_hosts", r"its key \(ssh-ed25519 SHA256:.*is not in .*no_hosts.*ssh-keyscan -p \d+ 127\.0\.0\.1 >> "),
        ("changed_hosts", r"another one than .*changed_hosts knows.*ssh-keygen -R"),
    ],
)
def test_a_host_key_that_is_not_known_is_refused(server, python, file, message):
    logins = server.logins()
    device = RemoteDevice(
        OnnxRuntimeDevice(), **server.address(known_hosts=str(server.folder / file), python=str(python))
    )
    with pytest.raises(DeviceError, match=message):
        device.state()
    assert server.logins() == logins


@needs_server
def test_no_configuration_of_ssh_switches_the_check_off(server, python, tmp_path, monkeypatch):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        "Host *\n  UserKnownHostsFile none\n  StrictHostKeyChecking no\n  GlobalKnownHostsFile none\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    device = RemoteDevice(OnnxRuntimeDevice(), **server.address(known_hosts=None, python=str(python)))
    with pytest.raises(DeviceError, match=r"is not in ~/\.ssh/known_hosts"):
        device.state()
    assert SshAddress("h").options()["known_hosts"] is not None


@needs_server
def test_a_key_that_the_host_does_not_know(server, python, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    device = RemoteDevice(
        OnnxRuntimeDevice(), **server.address(key=str(server.folder / "other_key"), python=str(python))
    )
    with pytest.raises(DeviceError, match=r"login of .* was refused .*ssh-copy-id"):
        device.state()


@pytest.mark.parametrize("name", ["key", "known_hosts"])
def test_files_that_are_missing(name, tmp_path):
    device = RemoteDevice(OnnxRuntimeDevice(), host="localhost", **{name: str(tmp_path / "none")})
    with pytest.raises(ConfigError, match=rf"device\.{name}=.*no such file"):
        device.state()


# ---- What the host lacks -------------------------------------------------------------------


@needs_server
def test_a_host_without_the_runtime(server, tmp_path, onnx_models, once):
    python = loopback.make_python(tmp_path / "env", ("numpy",))
    device = RemoteDevice(OnnxRuntimeDevice(), **server.address(python=str(python)))
    with pytest.raises(DeviceError, match=r"No module named 'onnxruntime'.*needs numpy and the runtime"):
        device.measure(onnx_models, once)


@needs_server
@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, r"Python does not start on 127\.0\.0\.1: .*(not found|No such file)"),
        ("""echo '{"gnomon": "/none", "python": [3, 9, 2], "missing": []}'""", r"3\.9\.2 lacks a newer Python.*3\.11"),
        ("""echo '{"gnomon": "/none", "python": [3, 12, 1], "missing": ["numpy"]}'""", r"3\.12\.1 lacks numpy"),
        ("echo welcome; echo broken >&2; exit 3", r"does not start on 127\.0\.0\.1: broken"),
    ],
)
def test_a_host_without_a_python_that_will_do(server, tmp_path, script, message):
    path = tmp_path / "python"
    if script is not None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    with pytest.raises(DeviceError, match=message):
        RemoteDevice(OnnxRuntimeDevice(), **server.address(python=str(path))).state()


@needs_server
def test_what_a_login_script_prints_does_no_harm(server, python, tmp_path):
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\necho Welcome; echo '{{}}'; exec {python} \"$@\"\n")
    path.chmod(0o755)
    assert RemoteDevice(OnnxRuntimeDevice(), **server.address(python=str(path))).state().cores == os.cpu_count()


@needs_server
def test_the_hosts_cores_are_counted(far, onnx_models, once):
    with pytest.raises(ConfigError, match=rf"device\.threads=999.*1 to {os.cpu_count()}"):
        RemoteDevice(OnnxRuntimeDevice(threads=999), **far).measure(onnx_models, once)


# ---- Models that misbehave there -----------------------------------------------------------


@needs_server
def test_a_hang_and_a_crash_cost_one_measurement_each(far, far_tmp, awkward, named, once):
    device = RemoteDevice(awkward(), **far)
    names = ["a", "hang", "segfault", "b"]
    a, hang, crash, b = device.measure(named(names), once)
    assert a.verdict != "failed"
    assert b.verdict != "failed"
    assert "1.5 s (protocol.timeout_s)" in hang.error
    assert "crashed with SIGSEGV" in crash.error
    assert not remains(far_tmp)


# ---- Links that break ----------------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.1)


@needs_server
def test_a_lost_link_is_made_again_and_what_was_measured_is_kept(far, far_tmp, server, awkward, named, once, hurried):
    seen, cut = [], []

    def cut_once(progress):
        seen.append(progress.model)
        if len(seen) == 2:
            cut.append(server.cut())

    device = RemoteDevice(awkward(), **far)
    device.on_progress = cut_once
    names = ["a", "b", "c", "d"]
    logins = server.logins()
    results = list(device.measure(named(names), unhurried(once)))
    assert server.logins() - logins == 2
    assert cut[0] >= 1
    assert [m.verdict == "failed" for m in results] == [False] * 4, [m.error for m in results]
    assert [len(m.process_values) for m in results] == [1] * 4
    assert sorted(seen) == names, "each was measured once"
    assert not remains(far_tmp), "the host cleans up by itself when the link breaks"


@needs_server
def test_a_model_that_always_breaks_the_link_fails_and_the_others_go_on(far, far_tmp, awkward, named, once, hurried):
    before, cut, after = RemoteDevice(awkward(), **far).measure(named(["a", "cut", "b"]), once)
    assert before.verdict != "failed"
    assert after.verdict != "failed"
    assert cut.error.startswith("the link to 127.0.0.1 was lost 3 times while it was measured")
    assert not remains(far_tmp)


@needs_server
@pytest.mark.slow
def test_a_link_that_always_breaks_before_any_model_is_a_lost_host(far, awkward, named, once, hurried, monkeypatch):
    device = RemoteDevice(awkward(), retries=2, **far)
    job = device.reference(Path())
    monkeypatch.setattr(device, "reference", lambda folder: type(job)("cut", job.graphs, job.plan, job.workload))
    with pytest.raises(DeviceLostError, match=r"the link was lost 3 times"):
        device.measure(named(["a"]), once)


@needs_server
def test_a_host_that_is_gone_ends_the_study_which_goes_on_when_it_is_back(
    far, reachable, awkward, named, once, hurried, tmp_path
):
    device = RemoteDevice(awkward(), retries=1, **far)
    store = MeasurementStore(tmp_path / "store.sqlite")
    models = named(["a", "b", "c"])
    list(device.measure(models[:1], once))  # reached once: retries count
    done = []

    def stop(progress):
        done.append(progress.model)
        if progress.round == 2:
            reachable.stop()

    device.on_progress = stop
    twice = replace(unhurried(once), processes=2, min_processes=2)
    start = time.monotonic()
    results = measure_all(device, twice, store, models, seed=0)
    assert [len(m.process_values) >= 1 for m in results] == [True] * 3, "the first round's samples are kept"
    assert sorted(len(m.process_values) for m in results) == [1, 1, 2]
    with pytest.raises(DeviceLostError, match=r"cannot be reached.*2 attempts.*goes on when it is back"):
        measure_all(device, once, store, models, seed=0)
    assert time.monotonic() - start < 30
    reachable.start()
    device.on_progress = None
    assert [m.verdict != "failed" for m in measure_all(device, once, store, models, seed=0)] == [True] * 3


@needs_server
def test_a_host_that_goes_in_the_first_round_keeps_what_comes_before(far, reachable, awkward, named, once, hurried):
    device = RemoteDevice(awkward(), retries=1, **far)
    device.on_progress = lambda progress: reachable.stop() if progress.done == 1 else None
    models = named(["a", "slow", "b"])
    results = device.measure(models, unhurried(once), seed=_seed_with_order(3))
    assert next(results).architecture == "a"
    with pytest.raises(DeviceLostError):
        next(results)


def _seed_with_order(n: int) -> int:
    """A seed under which the first round takes the models in their order."""
    import numpy as np

    return next(s for s in range(10_000) if list(np.random.default_rng((s, 0)).permutation(n)) == list(range(n)))


@needs_server
def test_a_host_that_was_never_reached_is_not_waited_for(server):
    start = time.monotonic()
    device = RemoteDevice(OnnxRuntimeDevice(), **server.address(port=1))
    with pytest.raises(DeviceLostError, match=r"cannot be reached: .*device\.host, port and user"):
        device.state()
    assert time.monotonic() - start < 5


@needs_server
@pytest.mark.slow
def test_a_link_that_falls_silent_is_lost(far, far_tmp, server, awkward, named, once, hurried, monkeypatch):
    monkeypatch.setattr(ssh_link, "SILENCE_S", 8.0)
    frozen = []

    def freeze_once(progress):
        if not frozen:
            frozen.extend(server.connections())
            for process in frozen:
                process.send_signal(signal.SIGSTOP)

    device = RemoteDevice(awkward(), **far)
    device.on_progress = freeze_once
    start = time.monotonic()
    try:
        results = list(device.measure(named(["a", "b", "c"]), unhurried(once)))
    finally:
        for process in frozen:
            process.kill()
    assert frozen
    assert time.monotonic() - start > 8
    assert [m.verdict == "failed" for m in results] == [False] * 3
    assert not remains(far_tmp)


# ---- A user's own modules, and torch -------------------------------------------------------


@needs_server
@pytest.mark.slow
def test_a_users_space_is_built_there(server, once, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "doubles"))
    from tiny_space import TinySpace

    space = TinySpace()
    device = RemoteDevice(TorchCPUDevice(), **server.address(python=sys.executable))
    assert device.accepts == "torch"
    small, large = (space.deployable({"width": width, "layers": 8}) for width in (8, 64))
    fast, slow = device.measure([small, large], replace(once, timeout_s=60))
    assert slow.latency_ms > fast.latency_ms


@needs_server
@pytest.mark.slow
@pytest.mark.parametrize("path", ["onnxruntime.OnnxRuntimeDevice", "openvino.OpenVINODevice", "ncnn.NcnnDevice"])
def test_other_devices_and_files(server, once, onnx_models, path):
    device = import_class(f"gnomon.devices.{path}")
    if device.unavailable() is not None:
        pytest.skip(device.unavailable())
    precision = "int8" if "int8" in device.precisions else "fp32"
    remote = RemoteDevice(device(precision=precision), **server.address(python=sys.executable))
    results = list(remote.measure(onnx_models, replace(once, timeout_s=60)))
    assert [m.verdict != "failed" for m in results] == [True] * 3, [m.error for m in results]
    assert results[0].setting.id == device(precision=precision).setting(onnx_models[0].workload).id


# ---- What is sent --------------------------------------------------------------------------


def test_the_code_bundle_is_small_the_same_and_without_the_rest(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "doubles"))
    bundle = code_bundle(["gnomon.devices.onnxruntime", "misbehaving.MisbehavingRunner"])
    assert bundle == code_bundle(["misbehaving.MisbehavingRunner"])
    assert len(bundle) < 1_000_000
    names = set(zipfile.ZipFile(BytesIO(bundle)).namelist())
    assert {"gnomon/__init__.py", "gnomon/devices/worker.py", "gnomon/schema.py", "misbehaving.py"} <= names
    rooms = {name.split("/")[1] for name in names if name.count("/") > 1}
    assert rooms == {"devices", "export", "records", "search_spaces"}
    with pytest.raises(DeviceError, match="no Python source"):
        code_bundle(["no_such_module.Runner"])


def test_files_that_belong_to_a_model(tmp_path):
    for name in ("model.xml", "model.bin", "other.bin", "model.ncnn.param", "model.ncnn.bin"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in model_files(tmp_path / "model.xml")] == ["model.xml", "model.bin"]
    assert [path.name for path in model_files(tmp_path / "model.ncnn.param")] == ["model.ncnn.param", "model.ncnn.bin"]
    with pytest.raises(MeasurementError, match="no such file"):
        model_files(tmp_path / "none.xml")


@pytest.mark.parametrize("location", ["weights", "../outside"])
def test_external_data_of_onnx_files(tmp_path, onnx_models, location):
    import onnx

    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(b"")
    model = onnx.load(onnx_models[0].graphs["main"].onnx_path)
    onnx.save(
        model,
        folder / "m.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="weights",
        size_threshold=0,
    )
    if location == "weights":
        assert [path.name for path in model_files(folder / "m.onnx")] == ["m.onnx", "weights"]
        return
    for tensor in (model := onnx.load(folder / "m.onnx", load_external_data=False)).graph.initializer:
        tensor.external_data[0].value = location
    onnx.save(model, folder / "m.onnx")
    with pytest.raises(MeasurementError, match="outside its folder"):
        model_files(folder / "m.onnx")


# ---- Configuration -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"device\.host=None"),
        ({"host": "h", "retries": -1}, r"device\.retries=-1"),
        ({"host": "h", "copy_timeout_s": 0}, r"device\.copy_timeout_s=0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        RemoteDevice(OnnxRuntimeDevice(), **arguments)


def test_only_local_devices_can_be_remote():
    inner = RemoteDevice(OnnxRuntimeDevice(), host="h")
    for other in (inner, RecordedDevice):
        with pytest.raises(ConfigError, match=r"device\.inner"):
            RemoteDevice(other, host="h")


def test_the_inner_device_is_chosen_in_the_config():
    config = compose("measure", ["device=remote", "device.host=pi5", "device.inner.threads=4"])
    device = instantiate(config.device, "device")
    assert (device.host, device.threads, type(device.inner)) == ("pi5", 4, OnnxRuntimeDevice)
    config = compose("measure", ["device=remote", "device@device.inner=torch_cpu", "device.host=pi5"])
    assert type(instantiate(config.device, "device").inner) is TorchCPUDevice


@needs_server
def test_the_command_line_measures_over_ssh(far, onnx_models, capsys):
    path = onnx_models[0].graphs["main"].onnx_path
    words = ["measure", f"from={path}", "device=remote", "protocol.processes=2", "protocol.min_processes=1"]
    words += [f"device.{name}={_quoted(value)}" for name, value in far.items()]
    assert cli.main(words) == 0
    assert "median latency" in capsys.readouterr().out


def _quoted(value: object) -> str:
    """A value for Hydra's command line grammar."""
    return "'" + str(value).replace("'", "\\'") + "'" if isinstance(value, str) else str(value)
