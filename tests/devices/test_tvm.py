"""Apache TVM, here and over RPC."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from gnomon.devices.tvm import TVMDevice
from gnomon.errors import ConfigError, DeviceError
from gnomon.testing import DeviceSuite

needs_runtime = pytest.mark.skipif(TVMDevice.unavailable() is not None, reason=f"{TVMDevice.unavailable()}")

_SERVER = """
import sys, time
from tvm.rpc.server import Server
server = Server("127.0.0.1", port=int(sys.argv[1]), port_end=int(sys.argv[1]) + 1, silent=True)
print(server.port, flush=True)
sys.stdin.read()
server.terminate()
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server():
    """The port of an RPC server on this machine."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert int(process.stdout.readline()) == port
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.1)
    yield port
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.runtime
@needs_runtime
class TestTVM(DeviceSuite):
    @pytest.fixture
    def device(self):
        return TVMDevice()

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self):
        remote = TVMDevice(host="127.0.0.1", device_name="a board")
        return [TVMDevice(target='{"kind": "llvm", "mcpu": "haswell"}'), remote]


@pytest.mark.runtime
@needs_runtime
def test_over_rpc_models_run_on_the_server(server, onnx_models, once):
    device = TVMDevice(host="127.0.0.1", port=server, device_name="a board")
    small, large = device.measure([onnx_models[0], onnx_models[-1]], once)
    assert small.verdict != "failed", small.error
    assert large.verdict != "failed", large.error
    assert large.latency_ms > 2 * small.latency_ms, "the time of the network, not of the model"
    assert large.peak_memory_bytes is None, "the memory of another machine"
    assert large.setting.hardware == "a board"


@pytest.mark.runtime
@needs_runtime
def test_no_server_is_said_in_one_line(onnx_models, once):
    device = TVMDevice(host="127.0.0.1", port=_free_port(), device_name="a board")
    with pytest.raises(DeviceError, match="RPC") as error:
        list(device.measure(onnx_models[:1], once))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"host": "board"}, "device_name"),
        ({"tracker": True}, "tracker"),
        ({"tracker": True, "host": "board", "device_name": "a board"}, "tracker"),
        ({"port": 0}, "port"),
        ({"precision": "int8"}, "precision"),
    ],
)
def test_wrong_options_are_refused(options, field):
    with pytest.raises(ConfigError, match=field):
        TVMDevice(**options)
