"""Commands on an Android phone through ``adb``: fixed words, quoted arguments, time limits."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..errors import DeviceError, MeasurementError
from .adb_output import choose_phone
from .isolation import DeviceLostError

SHORT_S = 20.0
"""For commands that only ask something."""
COPY_S = 300.0
FOLDER = "/data/local/tmp"
"""Where a phone lets adb's user write and execute."""

_GONE = ("no devices", "not found", "offline", "unauthorized", "connection reset", "protocol fault", "closed")


class CommandFailedError(MeasurementError):
    """A command on the phone ended with another code than 0."""


class AdbShell:
    """One phone.

    ``adb shell`` joins its arguments and has the phone's shell read them, so each is quoted.

    Args:
        adb: The program.
        serial: Which phone; None for the only one.

    Raises:
        DeviceError: If adb is missing, or there is no such phone or it is not ready.
    """

    def __init__(self, adb: str, serial: str | None) -> None:
        self._adb = adb
        self.serial = choose_phone(self._run(["devices"], SHORT_S), serial)
        self._phone = ["-s", self.serial]

    def run(self, command: Sequence[str], limit_s: float = SHORT_S) -> str:
        """What a command printed.

        Raises:
            CommandFailedError: If it ended with another code than 0.
            TimeoutError: If it took too long.
            DeviceLostError: If the phone is gone.
        """
        return self._run([*self._phone, "shell", shlex.join(command)], limit_s)

    def ask(self, command: Sequence[str]) -> str:
        """What a command printed; nothing if the phone does not let it."""
        with contextlib.suppress(CommandFailedError, TimeoutError):
            return self.run(command).strip()
        return ""

    def push(self, local: Path, remote: str) -> None:
        """Copies a file to the phone.

        Raises:
            CommandFailedError, TimeoutError, DeviceLostError: As :meth:`run`.
        """
        self._run([*self._phone, "push", str(local.resolve()), remote], COPY_S)

    def make_folder(self) -> str:
        """A new folder of our own."""
        folder = f"{FOLDER}/gnomon-{secrets.token_hex(8)}"
        self.run(["mkdir", folder])
        return folder

    def remove_folder(self, folder: str) -> None:
        """Removes it with what is in it, and ends what runs from it; a phone that is gone keeps it."""
        with contextlib.suppress(DeviceError, MeasurementError, TimeoutError):
            self.end(folder)
            self.run(["rm", "-rf", folder])

    def end(self, folder: str) -> None:
        """Ends programs that were started from ``folder``: they outlive an adb that was stopped."""
        with contextlib.suppress(CommandFailedError):  # there are none
            self.run(["pkill", "-9", "-f", f"^{folder}/"])

    def _run(self, arguments: list[str], limit_s: float) -> str:
        try:
            done = subprocess.run(
                [self._adb, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"it took longer than {limit_s:g} s") from None
        except OSError as error:
            raise DeviceError(f"cannot be started: {error.strerror}", field="device.adb", value=self._adb) from error
        output, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        reason = errors.strip() or output.strip()
        if done.returncode and errors.startswith(("error:", "adb:")) and any(word in errors for word in _GONE):
            raise DeviceLostError(
                " ".join(reason.split())[:200],
                field="device.serial",
                value=getattr(self, "serial", None),
                hint="A study goes on when the phone is back.",
            )
        if done.returncode:
            last = " ".join(reason.splitlines()[-1].split())[:200] if reason else "no message"
            raise CommandFailedError(f"ended with exit code {done.returncode} on the phone: {last}")
        return output.replace("\r\n", "\n")
