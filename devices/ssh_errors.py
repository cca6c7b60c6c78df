"""What went wrong with an ssh connection, in words that say what to do."""

from __future__ import annotations

import contextlib
import getpass
from typing import TYPE_CHECKING

from ..errors import DeviceError, GnomonError, MeasurementError

if TYPE_CHECKING:
    from .ssh_link import SshAddress


class LinkLostError(Exception):
    """The host did not answer, or stopped answering: worth another try."""


def explained(error: BaseException, host: str, user: str | None) -> BaseException:
    """The error to raise in place of ``error``, which asyncssh or the system raised."""
    import asyncssh

    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (GnomonError, LinkLostError)) or not isinstance(error, Exception):
        return error
    if isinstance(error, asyncssh.PermissionDenied):
        return DeviceError(
            f"the login of {user or getpass.getuser()} was refused ({reason})",
            field="device.host",
            value=host,
            hint="Add your public key to ~/.ssh/authorized_keys there (ssh-copy-id), and name its private key "
            "with device.key or load it into ssh-agent; passwords are not asked for.",
        )
    if isinstance(error, (asyncssh.KeyImportError, asyncssh.KeyEncryptionError)):
        return DeviceError(
            f"the key cannot be used: {reason}",
            field="device.key",
            value=host,
            hint="Load a key with a passphrase into ssh-agent.",
        )
    if isinstance(error, asyncssh.SFTPConnectionLost):
        return LinkLostError(reason)
    if isinstance(error, asyncssh.SFTPError):
        return MeasurementError(f"it cannot be copied to {host}: {reason}")
    if isinstance(error, asyncssh.ChannelOpenError):
        return DeviceError(f"it takes no commands or files: {reason}", field="device.host", value=host)
    if isinstance(error, (asyncssh.Error, OSError, EOFError)):
        return LinkLostError(reason)
    return error


async def host_key_error(address: SshAddress) -> DeviceError:
    """Why the host's key is not trusted: unknown, or another one than known."""
    import asyncssh

    options = {name: value for name, value in address.options().items() if name == "port"}
    offered, known, target = "", False, address.host
    with contextlib.suppress(asyncssh.Error, OSError, ValueError):
        key = await asyncssh.get_server_host_key(address.host, **options)
        if key is not None:
            offered = f" ({key.get_algorithm()} {key.get_fingerprint()})"
        files = address.known_hosts_files()
        known = bool(files and asyncssh.match_known_hosts(files, address.host, "", address.port)[0])
    port = "" if address.port is None else f"-p {address.port} "
    file = address.known_hosts or "~/.ssh/known_hosts"
    if known:
        return DeviceError(
            f"its key{offered} is another one than {file} knows: the machine is new, or another answers",
            field="device.host",
            value=target,
            hint=f"If it is new, remove the old key (ssh-keygen -R) and add the new one to {file}.",
        )
    return DeviceError(
        f"its key{offered} is not in {file}",
        field="device.host",
        value=target,
        hint=f"Compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on that machine, "
        f"then add it: `ssh-keyscan {port}{target} >> {file}`.",
    )
