"""A real ssh server on the loopback interface, and a Python that has numpy and a runtime but not gnomon."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
MISSING = None if SSHD and shutil.which("ssh-keygen") else "no sshd here (Debian: apt-get install openssh-server)"
PACKAGES = ("numpy", "onnxruntime", "flatbuffers", "google", "packaging")


@dataclass
class Server:
    """One sshd; ``stop`` and ``start`` keep port and keys."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError((self.folder / "log").read_text())

    def stop(self) -> None:
        """Ends the server and every connection."""
        if self.process is not None:
            connections = self.connections()  # asked first: orphans are nobody's children
            self.process.terminate()
            for process in connections:
                process.kill()
            self.process.wait()

    def connections(self) -> list[psutil.Process]:
        """sshd's own processes for connections; what they started is not among them."""
        if self.process is None or self.process.poll() is not None:
            return []
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in found if process.name().startswith("sshd")]

    def logins(self) -> int:
        """How many there have been."""
        return (self.folder / "log").read_text().count("Accepted")

    def cut(self) -> int:
        """Kills the processes of all connections; their number."""
        connections = self.connections()
        for process in connections:
            process.kill()
        return len(connections)

    def address(self, **changes: Any) -> dict[str, Any]:
        """Keyword arguments of a device."""
        address = {
            "host": "127.0.0.1",
            "port": self.port,
            "known_hosts": str(self.folder / "known_hosts"),
            "key": str(self.folder / "user_key"),
            "connect_timeout_s": 10.0,
        }
        return {**address, **changes}


def make_server(folder: Path) -> Server:
    """Keys and configuration of a server for the current user."""
    for name in ("host_key", "user_key", "other_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        subprocess.run(command, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    for name, key in (("known_hosts", "host_key"), ("changed_hosts", "other_key")):
        (folder / name).write_text(f"[127.0.0.1]:{port} {(folder / f'{key}.pub').read_text()}")
    (folder / "no_hosts").write_text("")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own folder, where the package did not start it
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "PermitRootLogin yes\nSubsystem sftp internal-sftp\nLogLevel INFO\nMaxStartups 50\n"
    )
    return Server(folder, port)


def make_python(folder: Path, packages: tuple[str, ...] = PACKAGES) -> Path:
    """An interpreter with these of this environment's packages and no others."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (target,) = folder.glob("lib/python*/site-packages")
    import numpy

    for source in Path(numpy.__file__).parents[1].iterdir():
        name = source.name.partition("-")[0].partition(".")[0]
        if name in packages:
            (target / source.name).symlink_to(source)
    return folder / "bin" / "python"


def make_far(folder: Path, python: Path, temporary: Path) -> Path:
    """``python`` with a temporary folder of its own, by a path that a shell would take apart.

    The lock under which a machine measures is this machine's all the same: two processes in real time on
    one core would wait for each other.
    """
    temporary.mkdir()
    lock = "gnomon-measuring.lock"
    (temporary / lock).symlink_to(Path(tempfile.gettempdir()) / lock)
    path = folder / "python; touch pwned; $(touch pwned) 'x' \"y\" &"
    path.write_text(f'#!/bin/sh\nTMPDIR={temporary} exec {python} "$@"\n')
    path.chmod(0o755)
    return path
