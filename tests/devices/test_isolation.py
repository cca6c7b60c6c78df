"""A crash, a hang, garbage or too much memory costs one measurement, never the search."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gnomon.devices import isolation
from gnomon.devices.isolation import Child, machine_to_oneself, quiet_cores, realtime_is_safe
from gnomon.devices.jobs import RoundJob
from gnomon.errors import DeviceError


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("abort", "crashed with SIGABRT"),
        ("segfault", "crashed with SIGSEGV"),
        ("killed", "crashed with SIGKILL"),
        ("exit", "ended with exit code 7: last words"),
        ("memory", "MemoryError"),
        ("nan", "output 'output' of graph 'main' is not finite"),
        ("raises", "ValueError: two lines"),
    ],
)
def test_each_misbehaviour_is_one_failed_measurement(misbehaving, named, once, name, reason):
    before, culprit, after = misbehaving().measure(named(["before", name, "after"]), once)
    assert before.verdict != "failed"
    assert after.verdict != "failed"
    assert culprit.verdict == "failed"
    assert reason in culprit.error
    assert "\n" not in culprit.error


def test_a_hang_costs_its_time_limit_and_its_whole_process_group(misbehaving, named, once, tmp_path):
    device = misbehaving(folder=str(tmp_path))
    start = time.monotonic()
    culprit, after = device.measure(named(["hang_with_children", "after"]), once)
    spent = time.monotonic() - start
    assert culprit.verdict == "failed"
    assert "1.5 s (protocol.timeout_s)" in culprit.error
    assert after.verdict != "failed"
    assert 2 * once.timeout_s < spent < 2 * once.timeout_s + 20
    grandchild = int((tmp_path / "grandchild").read_text())
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE


def test_several_culprits_in_one_round(misbehaving, named, once):
    names = ["abort", "a", "segfault", "b", "exit"]
    verdicts = {m.architecture: m.verdict for m in misbehaving().measure(named(names), once)}
    assert [name for name in names if verdicts[name] == "failed"] == ["abort", "segfault", "exit"]


def test_a_model_that_crashes_once_is_tried_again(misbehaving, named, once, tmp_path):
    flaky, other = misbehaving(folder=str(tmp_path)).measure(named(["flaky", "other"]), once)
    assert flaky.verdict != "failed"
    assert len(flaky.process_values) == 1
    assert other.verdict != "failed"


def test_garbage_on_standard_output_does_not_break_the_stream(misbehaving, named, once):
    garbage, other = misbehaving().measure(named(["garbage", "other"]), once)
    assert garbage.verdict != "failed"
    assert other.verdict != "failed"
    assert garbage.n_runs > 0


@pytest.mark.parametrize("at_start", ["abort", "raises"])
def test_a_runtime_that_does_not_start_is_a_device_error(misbehaving, named, once, at_start):
    with pytest.raises(DeviceError, match=r"SIGABRT|exit code 1: lines"):
        misbehaving(at_start=at_start).measure(named(["a"]), once)


def test_a_reference_model_that_hangs_is_a_device_error(misbehaving, named, once, monkeypatch):
    device = misbehaving()
    job = device.reference(Path())
    monkeypatch.setattr(device, "reference", lambda folder: type(job)("hang", job.graphs, job.plan, job.workload))
    with pytest.raises(DeviceError, match="hung on the reference model"):
        device.measure(named(["a"]), once)


def test_keyboard_interrupt_leaves_no_child(misbehaving, named, once, monkeypatch):
    started = []
    monkeypatch.setattr(Child, "__enter__", _recording(Child.__enter__, started))

    def interrupt(self, deadline):
        raise KeyboardInterrupt

    monkeypatch.setattr(Child, "event", interrupt)
    with pytest.raises(KeyboardInterrupt):
        misbehaving().measure(named(["hang"]), once)
    assert [child._process.poll() for child in started] == [-signal.SIGKILL]


def _recording(enter, started):
    def entered(self):
        started.append(self)
        return enter(self)

    return entered


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is signalled on Linux")
def test_a_child_dies_with_its_parent(named, once, tmp_path):
    script = tmp_path / "parent.py"
    doubles = Path(__file__).parent / "doubles"
    script.write_text(
        f"import sys, time; sys.path.insert(0, {str(doubles)!r})\n"
        "from gnomon.devices import Protocol\n"
        "from gnomon.devices.isolation import Child\n"
        "from gnomon.devices.jobs import ModelJob, RoundJob, GraphJob, CallJob\n"
        "from gnomon.records import Workload\n"
        "model = ModelJob('hang', {'main': GraphJob((), ('output',))}, (CallJob('main'),), Workload((2,)))\n"
        "job = RoundJob('misbehaving.MisbehavingRunner', 1, {}, (model,), Protocol(), import_paths=tuple(sys.path))\n"
        "child = Child(job).__enter__()\n"
        "while child.event(time.monotonic() + 60)['event'] != 'start': pass\n"
        "print(child._process.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    parent = subprocess.Popen([sys.executable, "-P", str(script)], stdout=subprocess.PIPE, text=True)
    try:
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert _gone(child)


def _gone(pid: int, limit_s: float = 10.0) -> bool:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_child_that_never_reads_does_not_block_the_parent(once):
    """The job is longer than a pipe holds; starting and killing the child must not wait for it."""
    job = RoundJob("misbehaving.MisbehavingRunner", 1, {"folder": "x" * 1_000_000}, (), once)
    start = time.monotonic()
    with Child(job) as child:
        os.kill(child._process.pid, signal.SIGSTOP)
    assert time.monotonic() - start < 10


def test_what_the_process_obtained_is_recorded(misbehaving, named, once):
    (result,) = misbehaving().measure(named(["a"]), once)
    if hasattr(os, "sched_getaffinity") and quiet_cores(1):
        assert result.fingerprint.pinned
    unpinned = type(once)(**{**vars(once), "pin": False, "realtime": True})
    (result,) = misbehaving().measure(named(["a"]), unpinned)
    assert not result.fingerprint.pinned
    assert not result.fingerprint.realtime


def test_realtime_only_where_the_machine_stays_usable(monkeypatch):
    assert not realtime_is_safe(())
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert realtime_is_safe((0, 1, 2))
    monkeypatch.setattr(isolation, "Path", lambda _: Path("/no such file"))
    assert not realtime_is_safe((0, 1, 2, 3))


def test_quiet_cores_prefers_the_idle_one(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    ticks = iter([{0: 100, 1: 900, 2: 0}, {0: 190, 1: 905, 2: 50}] * 3)
    monkeypatch.setattr(isolation, "_busy_ticks", lambda: next(ticks))
    assert quiet_cores(1) == (1,)
    assert set(quiet_cores(2)) == {1, 2}
    assert set(quiet_cores(3)) == {0, 1, 2}
    assert quiet_cores(4) == ()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's counters")
def test_the_ticks_of_a_busy_core_grow():
    core = min(os.sched_getaffinity(0))
    before = isolation._busy_ticks()
    code = (
        f"import os, time; os.sched_setaffinity(0, {{{core}}}); end = time.time() + 0.5\nwhile time.time() < end: pass"
    )
    subprocess.run([sys.executable, "-S", "-c", code], check=True)
    after = isolation._busy_ticks()
    assert set(after) == set(before) >= os.sched_getaffinity(0)
    assert after[core] - before[core] >= 20


def test_one_measurement_at_a_time_on_a_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(isolation.tempfile, "gettempdir", lambda: str(tmp_path))
    script = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from gnomon.devices.isolation import machine_to_oneself\n"
        "with machine_to_oneself(): print('mine', flush=True)\n"
    )
    with machine_to_oneself():
        other = subprocess.Popen([sys.executable, "-P", "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=2)
    out, _ = other.communicate(timeout=30)
    assert out == "mine\n"
