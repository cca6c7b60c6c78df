"""A device of another machine, reached over ssh.

Models are exported and converted here; the host gets the measuring code, the converted files and the
expected answers, and times rounds exactly as this machine would: on its quietest cores, in child
processes with time limits. Results come back one by one, so that a link that breaks costs little.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..errors import ConfigError, DeviceError, MeasurementError
from ..records import Fingerprint, Measurement, Setting, Workload
from ..search_spaces import Deployable
from .answers import Array
from .isolation import DeviceLostError, RoundResult
from .jobs import GraphJob, ModelJob, RoundJob, Sample
from .local import LocalDevice, Progress
from .protocol import Protocol
from .questions import ask
from .ssh_bundle import code_bundle
from .ssh_errors import LinkLostError
from .ssh_link import SshAddress, SshLink

FIRST_PAUSE_S = 1.0
"""Before the second attempt to reach a lost host; it doubles with each further one."""
LONGEST_PAUSE_S = 60.0
CHANCES = 3
"""So often may the link be lost while one model is measured, before that model has failed."""


@dataclass(frozen=True)
class HostState:
    """What a host said of itself and of the device that it is to be."""

    hardware: str
    runtime: str
    cores: int
    fingerprint: Fingerprint


class RemoteDevice(LocalDevice):
    """Any local device on another machine over ssh. Models are converted here and timed there.

    The host needs Python 3.11 with numpy and the runtime, not Gnomon, and an ssh server with SFTP. Its
    key must be known; logins are by key or agent. The setting is that of the host: a model measured
    through this device has the identity that it would have if Gnomon ran there.

    Args:
        inner: The device that the host is to be.
        host: Name, address, or alias of ``~/.ssh/config``.
        user, port, key: Login; what is None comes from ``~/.ssh/config`` or is ssh's default.
        known_hosts: File of trusted host keys; None for ``~/.ssh/known_hosts`` and the system's.
        python: Interpreter on the host, a path absolute or relative to the home folder there.
        connect_timeout_s: Limit for connecting.
        copy_timeout_s: Limit for copying the code, or one model.
        retries: Attempts to reach a host again that was lost, with pauses of 1, 2, 4, ... s.
        on_progress: See :class:`~gnomon.devices.local.LocalDevice`.

    Raises:
        ConfigError: If an argument is missing or out of range.
    """

    name: ClassVar[str] = "remote"
    accepts: ClassVar[Literal["torch", "onnx", "architecture"]] = "onnx"
    runner: ClassVar[str] = ""

    def __init__(
        self,
        inner: LocalDevice,
        host: str | None = None,
        user: str | None = None,
        port: int | None = None,
        known_hosts: str | None = None,
        key: str | None = None,
        python: str = "python3",
        connect_timeout_s: float = 15.0,
        copy_timeout_s: float = 120.0,
        retries: int = 5,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        if not isinstance(inner, LocalDevice) or isinstance(inner, RemoteDevice):
            raise ConfigError("not a device that a host can be", field="device.inner", value=inner)
        super().__init__(inner.threads, inner.statistic, on_progress=on_progress)
        for name, limit in (("connect_timeout_s", connect_timeout_s), ("copy_timeout_s", copy_timeout_s)):
            if limit <= 0:
                raise ConfigError("must be positive", field=f"device.{name}", value=limit)
        if retries < 0:
            raise ConfigError("must not be negative", field="device.retries", value=retries)
        if not host:
            raise ConfigError("which host?", field="device.host", value=host, allowed="a name, an address, or an alias")
        self.inner = inner
        self.host = host
        self.precision = inner.precision
        self.retries = retries
        # What a host takes is what the device takes that it is; the class's value is for the catalog.
        self.accepts = inner.accepts  # type: ignore[misc]
        self._address = SshAddress(
            host, user, port, _path(known_hosts), _path(key), python, connect_timeout_s, copy_timeout_s
        )
        self._state: HostState | None = None
        self._link: SshLink | None = None
        self._modules: tuple[str, ...] = ()

    # ---- The device that the host is -------------------------------------------------------

    @classmethod
    def unavailable(cls) -> str | None:
        return "asyncssh is not installed: pip install gnomon-nas[remote]" if find_spec("asyncssh") is None else None

    def options(self) -> Mapping[str, Any]:
        return self.inner.options()

    def reference(self, folder: Path) -> ModelJob:
        return self.inner.reference(folder)

    def prepare(self, deployable: Deployable, folder: Path) -> ModelJob:
        return self.inner.prepare(deployable, folder)

    def check(self, deployable: Deployable) -> None:
        self.inner.check(deployable)

    def hardware(self) -> str:
        return self.state().hardware

    def cores(self) -> int:
        return self.state().cores

    def setting(self, workload: Workload) -> Setting:
        state = self.state()
        return replace(self.inner.setting(workload), hardware=state.hardware, runtime=state.runtime)

    def fingerprint(self) -> Fingerprint:
        """The host's state when it was last connected to."""
        return self.state().fingerprint

    def deployed(self, deployable: Deployable, folder: Path) -> Deployable:
        return self.inner.deployed(deployable, folder)

    def answers(self, deployable: Deployable, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The host's answers: other processors may round otherwise than this one."""
        self._send_modules_of([deployable])
        with self._connected():
            return ask(self, deployable, inputs, lambda job: self.run_round(job, None))

    @property
    def calibration(self) -> Any:
        """Of the inner device, see :class:`~gnomon.devices.onnx_device.OnnxDevice`."""
        return getattr(self.inner, "calibration", None)

    @calibration.setter
    def calibration(self, samples: Any) -> None:
        if hasattr(self.inner, "calibration"):
            self.inner.calibration = samples

    # ---- Measuring -------------------------------------------------------------------------

    def measure(self, deployables: Sequence[Deployable], protocol: Protocol, *, seed: int = 0) -> Iterator[Measurement]:
        """See :class:`~gnomon.devices.Device`.

        Raises:
            DeviceError: Also if the host is not to be trusted, refuses the login or lacks something.
            DeviceLostError: If it cannot be reached; after the measurements that came before.
        """
        reason = self.unavailable()
        if reason is None and self.inner.accepts == "onnx":
            reason = self.inner.unavailable()  # converts, and says what is expected
        if reason is not None:
            raise DeviceError(reason, field="device", value=self.name)
        self._send_modules_of(deployables)
        with self._connected():
            return super().measure(deployables, protocol, seed=seed)

    def run_round(self, job: RoundJob, on_model: Callable[[int], None] | None) -> RoundResult:
        job = replace(job, runner=self.inner.runner, import_paths=())
        return _RemoteRound(self, job, on_model).run()

    # ---- The link --------------------------------------------------------------------------

    def state(self) -> HostState:
        """What the host is, asked once.

        Raises:
            DeviceError: If it cannot be asked.
        """
        if self._state is None:
            with self._connected():
                pass
        if self._state is None:
            raise DeviceError("it did not say what it is", field="device.host", value=self.host)
        return self._state

    def link(self) -> SshLink:
        """The open link, made anew if it was lost.

        Raises:
            DeviceLostError: If the host cannot be reached.
        """
        if self._link is None:
            self._link = self._reach()
        return self._link

    def drop_link(self) -> None:
        """Closes the link."""
        link, self._link = self._link, None
        if link is not None:
            link.__exit__()

    def _send_modules_of(self, deployables: Sequence[Deployable]) -> None:
        """The host needs the modules of a user's own device, runner and spaces."""
        spaces = {str(d.architecture.space.get("_target_")) for d in deployables if d.architecture is not None}
        self._modules = tuple(sorted({self.inner.runner, _class_path(self.inner), *spaces}))

    @contextmanager
    def _connected(self) -> Iterator[None]:
        if self._link is not None:
            yield
            return
        try:
            self.link()
            yield
        finally:
            self.drop_link()

    def _reach(self) -> SshLink:
        """Connects. A host that was never reached gets one attempt: its address is wrong, most likely."""
        attempts = 1 if self._state is None else 1 + self.retries
        code = code_bundle(self._modules or (self.inner.runner, _class_path(self.inner)))
        reason = ""
        for attempt in range(attempts):
            if attempt:
                time.sleep(min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S))
            link = SshLink(self._address, code)
            try:
                link.__enter__()
            except LinkLostError as error:
                reason = str(error)
                continue
            try:
                self._probe(link)
            except LinkLostError as error:
                reason = str(error)
                link.__exit__()
                continue
            except BaseException:
                link.__exit__()
                raise
            return link
        raise DeviceLostError(
            f"cannot be reached: {reason}" + (f" ({attempts} attempts)" if attempts > 1 else ""),
            field="device.host",
            value=self.host,
            hint="Check that it runs, and device.host, port and user. A study goes on when it is back.",
        )

    def _probe(self, link: SshLink) -> None:
        request = link.request("probe", device=_class_path(self.inner), arguments=self.inner.arguments())
        answer = next(request)
        state = HostState(
            answer["hardware"], answer["runtime"], answer["cores"], Fingerprint.from_dict(answer["fingerprint"])
        )
        before = self._state
        if before is not None and (before.hardware, before.runtime) != (state.hardware, state.runtime):
            raise DeviceError(
                f"it was {before.hardware} with {before.runtime}, and now is {state.hardware} with {state.runtime}",
                field="device.host",
                value=self.host,
            )
        self._state = state


class _RemoteRound:
    """One round on a host, over as many links as it takes. Models are known by their index in the job."""

    def __init__(self, device: RemoteDevice, job: RoundJob, on_model: Callable[[int], None] | None) -> None:
        self._device, self._job, self._on_model = device, job, on_model
        self._result = RoundResult()
        self._busy: int | None = None

    def run(self) -> RoundResult:
        waiting, losses, idle = list(range(len(self._job.models))), Counter[int](), 0
        while waiting:
            known = len(waiting)
            try:
                self._over_one_link(waiting)
                break
            except LinkLostError as lost:
                self._device.drop_link()
                waiting = [index for index in waiting if not self._done(index)]
                if self._busy in waiting:
                    losses[self._busy] += 1
                    waiting = self._blame(self._busy, losses[self._busy], str(lost), waiting)
                idle = 0 if self._busy is not None or len(waiting) < known else idle + 1
                if idle > self._device.retries:
                    raise self._lost(f"the link was lost {idle} times, last: {lost}") from lost
            except DeviceLostError as error:
                error.result = self._result
                raise
        return self._result

    def _blame(self, model: int, losses: int, reason: str, waiting: list[int]) -> list[int]:
        """What waits when the link was lost while ``model`` was measured: it comes last, or has failed."""
        others = [index for index in waiting if index != model]
        if losses < CHANCES:
            return [*others, model]
        self._fail(model, f"the link to {self._device.host} was lost {losses} times while it was measured: {reason}")
        return others

    def _over_one_link(self, waiting: list[int]) -> None:
        self._busy = None
        link = self._device.link()
        models: dict[int, ModelJob] = {}
        for index in waiting:
            try:
                models[index] = _shipped(self._job.models[index], link)
            except MeasurementError as error:
                self._fail(index, str(error))
        if not models:
            return
        reference = None if self._job.reference is None else _shipped(self._job.reference, link)
        job = replace(self._job, models=tuple(models.values()), reference=reference)
        self._follow(link, job, list(models))

    def _follow(self, link: SshLink, job: RoundJob, indices: list[int]) -> None:
        for event in link.request("round", job=job.to_dict()):
            if event["event"] == "end":
                return
            index = indices[event["model"]]
            if event["event"] == "start":
                self._busy = index
                continue
            self._busy = None
            if event["event"] == "result":
                _fetch_replies(job.models[event["model"]], self._job.models[index], link)
                self._result.samples[index] = Sample.from_dict(event["sample"])
                if self._on_model:
                    self._on_model(index)
            else:
                self._fail(index, str(event["error"]))

    def _done(self, index: int) -> bool:
        return index in self._result.samples or index in self._result.errors

    def _fail(self, index: int, reason: str) -> None:
        self._result.errors[index] = reason
        if self._on_model:
            self._on_model(index)

    def _lost(self, problem: str) -> DeviceLostError:
        return DeviceLostError(problem, field="device.host", value=self._device.host, result=self._result)


def _shipped(model: ModelJob, link: SshLink) -> ModelJob:
    """``model`` with the paths that its files have on the host."""

    def ship(graph: GraphJob) -> GraphJob:
        return replace(
            graph,
            path=None if graph.path is None else link.copy(graph.path),
            answers=None if graph.answers is None else link.copy(graph.answers),
            questions=None if graph.questions is None else link.copy(graph.questions),
            replies=None if graph.replies is None else link.new_file(Path(graph.replies).name),
        )

    return replace(model, graphs={name: ship(graph) for name, graph in model.graphs.items()})


def _fetch_replies(there: ModelJob, here: ModelJob, link: SshLink) -> None:
    for name, graph in here.graphs.items():
        remote = there.graphs[name].replies
        if graph.replies is not None and remote is not None:
            link.fetch(remote, graph.replies)


def _class_path(device: LocalDevice) -> str:
    return f"{type(device).__module__}.{type(device).__qualname__}"


def _path(text: str | os.PathLike[str] | None) -> Path | None:
    return None if text is None else Path(text).expanduser()
