"""One connection to a remote host over ssh, for code that is not asynchronous.

The host's key is checked against ``known_hosts``, always; nothing that a user or a file names goes
through a shell: the one command that is run is fixed but for the interpreter's path, which is quoted,
requests go as JSON through standard input, files over SFTP into a folder that only its owner can read
and that is removed when the connection ends, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shlex
import threading
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self, TypeVar

from ..errors import ConfigError, DeviceError, MeasurementError
from .remote_host import BEAT_S, SILENCE_S
from .ssh_bundle import model_files
from .ssh_errors import LinkLostError, explained, host_key_error

PYTHON = (3, 11)
"""The oldest Python that the measuring process runs on."""
BANNER_LINES = 200
"""So many lines may a login script print before our own first line."""

_START = """
import json, os, shutil, signal, sys, tempfile
from importlib.util import find_spec
sys.path[:] = [path for path in sys.path if path]
for name in ("SIGTERM", "SIGHUP", "SIGINT"):
    signal.signal(getattr(signal, name), lambda *_: sys.exit(1))
folder = tempfile.mkdtemp(prefix="gnomon-remote-")
try:
    missing = [name for name in ("numpy",) if find_spec(name) is None]
    hello = {"gnomon": folder, "python": list(sys.version_info[:3]), "missing": missing}
    print(json.dumps(hello), flush=True)
    if sys.stdin.readline().strip() == "go":
        code = os.path.join(folder, "code")
        shutil.unpack_archive(os.path.join(folder, "code.zip"), code)
        sys.path.insert(0, code)
        os.environ["PYTHONPATH"] = os.pathsep.join([code, *filter(None, [os.environ.get("PYTHONPATH")])])
        from gnomon.devices.remote_host import main
        main()
finally:
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    shutil.rmtree(folder, ignore_errors=True)
"""
"""The fixed program of the far side: makes its folder, waits for the code, serves, removes the folder."""

T = TypeVar("T")


@dataclass(frozen=True)
class SshAddress:
    """Where and as whom. What is None is taken from ``~/.ssh/config``, or is ssh's default.

    Args:
        known_hosts: File of the keys that hosts may have; None for the user's and the system's.
        key: File of the private key; None for the agent's and the usual files.
        python: Interpreter on the host: a name or a path, not a command line.
        connect_timeout_s: For connecting and starting Python, each.
        copy_timeout_s: For copying the code, or one model.
    """

    host: str
    user: str | None = None
    port: int | None = None
    known_hosts: Path | None = None
    key: Path | None = None
    python: str = "python3"
    connect_timeout_s: float = 15.0
    copy_timeout_s: float = 120.0

    def known_hosts_files(self) -> list[str]:
        """Existing files only. Never empty of meaning: no file at all knows no host."""
        if self.known_hosts is not None:
            return [str(self.known_hosts)]
        usual = (Path("~/.ssh/known_hosts").expanduser(), Path("/etc/ssh/ssh_known_hosts"))
        return [str(path) for path in usual if path.is_file()]

    def options(self) -> dict[str, Any]:
        """Keyword arguments of asyncssh. ``known_hosts`` is always given: ``UserKnownHostsFile none`` in a
        user's configuration would switch the check off."""
        given = {"username": self.user, "port": self.port, "client_keys": None if self.key is None else [str(self.key)]}
        return {
            **{name: value for name, value in given.items() if value is not None},
            "known_hosts": self.known_hosts_files() or b"",
        }


class SshLink:
    """A host with the measuring code, ready for requests. Leaving the context ends what runs there.

    Args:
        address: The host.
        code: What :func:`~gnomon.devices.ssh_bundle.code_bundle` made.

    Raises:
        ConfigError: If a file of the address is missing.
        DeviceError: If the host must not be trusted, refuses the login, or cannot run the code.
        LinkLostError: If it does not answer, or stops answering.
    """

    def __init__(self, address: SshAddress, code: bytes) -> None:
        self._address, self._code = address, code
        self._events: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._copied: dict[Path, str] = {}
        self._written = 0
        self._last_words = "it was closed"
        self._connection: Any = None
        self._tasks: list[asyncio.Task[None]] = []

    def __enter__(self) -> Self:
        for name, path in (("device.known_hosts", self._address.known_hosts), ("device.key", self._address.key)):
            if path is not None and not path.is_file():
                raise ConfigError("no such file", field=name, value=str(path))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._wait(self._connect(), 2 * self._address.connect_timeout_s)
            self._wait(self._start(), self._address.connect_timeout_s)
            self._wait(self._serve(), self._address.copy_timeout_s)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(LinkLostError, DeviceError):
            self._wait(self._close(), 5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ---- Requests --------------------------------------------------------------------------

    def request(self, do: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Sends a request; the events that answer it, until the caller has seen the last of them.

        Raises:
            DeviceError: If the host could not do it.
            LinkLostError: If the link broke.
        """
        line = json.dumps({"do": do, **arguments}).encode() + b"\n"
        self._wait(self._send(line), self._address.copy_timeout_s)
        while True:
            try:
                event = self._events.get(timeout=SILENCE_S)
            except Empty:
                raise LinkLostError(f"nothing was heard for {SILENCE_S:g} s") from None
            if event is None:
                raise LinkLostError(self._last_words)
            if event["event"] == "error":
                raise DeviceError(
                    str(event["problem"]),
                    field="device.host",
                    value=self._address.host,
                    hint=f"There, {self._address.python} needs numpy and the runtime.",
                )
            if event["event"] != "alive":
                yield event

    def copy(self, path: str) -> str:
        """Copies a model's file, with what belongs to it, once a connection; its path on the host.

        Raises:
            MeasurementError: If it cannot be copied in time; it costs this model.
            LinkLostError: If the link broke.
        """
        local = Path(path)
        if local not in self._copied:
            folder = f"{self._folder}/files/{len(self._copied)}"
            try:
                self._wait(self._put(local, folder), self._address.copy_timeout_s)
            except _Slow:
                raise MeasurementError(
                    "copying it to the host took longer",
                    field="device.copy_timeout_s",
                    value=self._address.copy_timeout_s,
                ) from None
            self._copied[local] = f"{folder}/{local.name}"
        return self._copied[local]

    def new_file(self, name: str) -> str:
        """A path on the host where the measuring process may write a file."""
        self._written += 1
        return f"{self._folder}/files/written-{self._written}-{name}"

    def fetch(self, remote: str, local: str) -> None:
        """Copies a file from the host.

        Raises:
            MeasurementError: If it cannot be copied.
            LinkLostError: If the link broke, or it took too long.
        """
        self._wait(self._get(remote, local), self._address.copy_timeout_s)

    # ---- In the event loop -----------------------------------------------------------------

    def _wait(self, work: Coroutine[Any, Any, T], limit_s: float) -> T:
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, limit_s), self._loop)
        try:
            return future.result()
        except TimeoutError:
            raise _Slow(f"it took longer than {limit_s:g} s") from None
        except BaseException as error:
            future.cancel()
            raise explained(error, self._address.host, self._address.user) from error

    async def _connect(self) -> None:
        import asyncssh

        limit = self._address.connect_timeout_s
        try:
            self._connection = await asyncssh.connect(
                self._address.host,
                connect_timeout=limit,
                login_timeout=limit,
                keepalive_interval=BEAT_S,
                keepalive_count_max=max(int(SILENCE_S / BEAT_S), 1),
                **self._address.options(),
            )
        except asyncssh.HostKeyNotVerifiable as error:
            raise await host_key_error(self._address) from error

    async def _start(self) -> None:
        """Starts Python there and learns where its folder is."""
        command = f"exec {shlex.quote(self._address.python)} -c {shlex.quote(_START)}"
        self._process = await self._connection.create_process(command, encoding=None)
        hello = await self._hello()
        version = tuple(hello["python"])
        if version < PYTHON or hello["missing"]:
            lacks = ", ".join(hello["missing"]) or "a newer Python"
            raise DeviceError(
                f"{self._address.host}'s Python {'.'.join(map(str, version))} lacks {lacks}",
                field="device.python",
                value=self._address.python,
                allowed=f"Python {'.'.join(map(str, PYTHON))} or newer with numpy and the runtime",
            )
        self._folder = str(hello["gnomon"])

    async def _hello(self) -> Mapping[str, Any]:
        for _ in range(BANNER_LINES):  # login scripts may print
            line = await self._process.stdout.readline()
            if not line:
                break
            with contextlib.suppress(ValueError):
                hello = json.loads(line)
                if isinstance(hello, dict) and "gnomon" in hello:
                    return hello
        raise DeviceError(
            f"Python does not start on {self._address.host}: {await self._error_output()}",
            field="device.python",
            value=self._address.python,
            hint="Name the interpreter, a path relative to your home folder there or an absolute one.",
        )

    async def _serve(self) -> None:
        """Copies the code and has it take requests."""
        self._sftp = await self._connection.start_sftp_client()
        await self._sftp.mkdir(f"{self._folder}/files")
        async with self._sftp.open(f"{self._folder}/code.zip", "wb") as file:
            await file.write(self._code)
        await self._send(b"go\n")
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._beat())]

    async def _send(self, line: bytes) -> None:
        self._process.stdin.write(line)
        await self._process.stdin.drain()

    async def _put(self, local: Path, folder: str) -> None:
        for file in model_files(local):
            target = f"{folder}/{file.relative_to(local.parent).as_posix()}"
            await self._sftp.makedirs(target.rpartition("/")[0], exist_ok=True)
            await self._sftp.put(str(file), target)

    async def _get(self, remote: str, local: str) -> None:
        await self._sftp.get(remote, local)

    async def _listen(self) -> None:
        """Hands events to the thread that waits for them; None at the end of the stream."""
        import asyncssh

        try:
            while line := await self._process.stdout.readline():
                self._events.put(json.loads(line))
            self._last_words = f"the process there ended: {await self._error_output()}"
        except (asyncssh.Error, OSError, ValueError) as error:
            self._last_words = " ".join(str(error).split()) or type(error).__name__
        finally:
            self._events.put(None)

    async def _beat(self) -> None:
        import asyncssh

        with contextlib.suppress(asyncssh.Error, OSError):  # the listener tells
            while True:
                await self._send(b'{"do": "alive"}\n')
                await asyncio.sleep(BEAT_S)

    async def _error_output(self, width: int = 200, limit_s: float = 2.0) -> str:
        """The last line that the process printed as an error, or how it ended."""
        import asyncssh

        output = io.BytesIO()
        with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
            async with asyncio.timeout(limit_s):
                while block := await self._process.stderr.read(1 << 16):
                    output.write(block)
                await self._process.wait_closed()
        lines = [" ".join(line.split()) for line in output.getvalue().decode(errors="replace").split("\n")]
        last = next((line for line in reversed(lines) if line), "")
        return last[:width] or f"exit status {self._process.exit_status}"

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._connection is not None:
            if hasattr(self, "_process"):
                self._process.stdin.write_eof()  # the far side removes its folder and ends
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(3.0):
                        await self._process.wait_closed()
            self._connection.close()
            await self._connection.wait_closed()


class _Slow(LinkLostError):
    """An operation took longer than its limit."""
