"""Several processes train one model: gradients are added over processes, each of which has a part of each batch.

One process and several do the same up to rounding: batch norm takes its statistics over all parts, and a step's
loss is the mean over the whole batch. Dropout alone draws other numbers in each process.

Shapes: B examples in this process, C channels, R processes.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import GnomonError, TaskError

TIMEOUT = timedelta(hours=24)
"""Of one exchange: the others wait while the first process scores and writes."""


class Processes:
    """The processes of a training, and what they exchange; alone, nothing is exchanged.

    Args:
        rank, count: This process out of how many; the first scores, writes and reports.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> float:
        """``n`` as a share of its sum over processes."""
        if self.count == 1:
            return 1.0
        total = torch.tensor(float(n), dtype=torch.float64)
        with _exchange():
            dist.all_reduce(total)
        return n / float(total)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Adds gradients over processes. A parameter that took part in no process keeps None as its gradient."""
        if self.count == 1:
            return
        used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
        with _exchange():
            dist.all_reduce(used, op=dist.ReduceOp.MAX)
        shared = [p for p, is_used in zip(parameters, used.tolist(), strict=True) if is_used]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in shared]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with _exchange():
            dist.all_reduce(flat)
        for parameter, part in zip(shared, flat.split([p.numel() for p in shared]), strict=True):
            parameter.grad = part.view_as(parameter)

    def sum(self, value: float) -> float:
        """The sum over processes; all wait for each other."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        with _exchange():
            dist.all_reduce(total)
        return float(total)

    def agreed(self, flag: bool) -> bool:
        """The first process's ``flag``, in every process."""
        if self.count == 1:
            return flag
        value = torch.tensor(flag, dtype=torch.uint8)
        with _exchange():
            dist.broadcast(value, src=0)
        return bool(value)

    @contextmanager
    def batch_norm_over_all(self) -> Iterator[None]:
        """Inside, batch norm in training mode takes its statistics over all processes."""
        if self.count == 1:
            yield
            return
        with _BatchNormOverAll(self):
            yield


@contextmanager
def _exchange() -> Iterator[None]:
    """An error of the exchange inside as one line that says what to do; models raise RuntimeErrors of their own."""
    try:
        yield
    except RuntimeError as error:
        raise TaskError(
            f"the processes of this training lost each other: {str(error).splitlines()[0]}",
            hint="If one died, it said why above. The same command goes on from the last checkpoint.",
        ) from error


class _Sum(torch.autograd.Function):
    """The sum over processes, through which gradients flow back to every process."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.detach().clone()
        with _exchange():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].contiguous().clone()
        with _exchange():
            dist.all_reduce(total)
        return total


class _BatchNormOverAll(TorchFunctionMode):
    """Replaces ``torch.nn.functional.batch_norm`` in training mode, whatever module calls it. (Torch's own
    SyncBatchNorm needs a GPU, and would have to replace the modules.)"""

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self._processes = processes

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func is not nn.functional.batch_norm:
            return func(*args, **named)
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        named |= dict(zip(names, args, strict=False))
        return self._normalise(**named) if named.get("training") else func(**named)

    def _normalise(
        self,
        input: torch.Tensor,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        dims = [d for d in range(input.ndim) if d != 1]
        n, mean, var = self._statistics(input, dims)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((var * (n / max(1.0, n - 1))).to(running_var.dtype), momentum)
        shape = [1, -1] + [1] * (input.ndim - 2)
        result = (input - mean.view(shape)) * torch.rsqrt(var + eps).view(shape)
        if weight is not None:
            result = result * weight.view(shape)
        return result if bias is None else result + bias.view(shape)

    def _statistics(self, input: torch.Tensor, dims: list[int]) -> tuple[float, torch.Tensor, torch.Tensor]:
        """Count, mean and biased variance by channel ``(C,)`` over all processes, in one exchange: means and
        variances of the parts are combined, which is as exact as two passes over the whole."""
        count = input.numel() // input.shape[1]
        own_mean = input.mean(dims)
        own_var = input.var(dims, correction=0)
        own = torch.cat([own_mean.new_full((1,), float(count)), own_mean, own_var])
        rows = [own if rank == self._processes.rank else torch.zeros_like(own) for rank in range(self._processes.count)]
        parts: torch.Tensor = _Sum.apply(torch.stack(rows))  # type: ignore[no-untyped-call] # (R, 1 + 2C)
        counts, means, variances = parts.split([1, len(own_mean), len(own_mean)], dim=1)
        counts = counts.detach()
        shares = counts / counts.sum()
        mean = (shares * means).sum(0)
        var = (shares * (variances + (means - mean) ** 2)).sum(0)
        return float(counts.sum()), mean, var


def run_in_processes(count: int, work: Callable[[Processes], Any], child_work: Callable[[Processes], Any]) -> Any:
    """Runs ``work`` here, as the first of ``count`` processes, and ``child_work`` in the others, which are started
    for it and end with it; returns what ``work`` returns.

    Args:
        count: From 1; with 1, nothing is started.
        work: Called with this process's :class:`Processes`.
        child_work: The same for the others; it is pickled.

    Raises:
        TaskError: If ``child_work`` cannot be pickled, another training of this kind runs in this process, or a
            process died.
    """
    if count == 1:
        return work(Processes())
    if dist.is_initialized():
        raise TaskError(
            "this process is a part of another distributed training",
            field="quality.processes",
            value=count,
            allowed="1",
        )
    try:
        # Explicitly, because multiprocessing's own pickler would share the tensors' memory with the children.
        payload = pickle.dumps(child_work)
    except Exception as error:  # Pickling runs code of whatever it meets.
        raise TaskError(
            f"the task or space cannot be sent to another process: {error}", field="quality.processes", value=count
        ) from error
    with tempfile.TemporaryDirectory(prefix="gnomon-processes-") as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        context = multiprocessing.get_context("spawn")
        children: list[BaseProcess] = [
            context.Process(target=_child, args=(rank, count, meeting, payload, torch.get_num_threads()), daemon=True)
            for rank in range(1, count)
        ]
        for child in children:
            child.start()
        try:
            result = _as_member(0, count, meeting, work)
        except BaseException:
            _end(children, patience_s=0.0)
            raise
        _end(children, patience_s=10.0)  # they have nothing left to do but to leave
        return result


def _end(children: Sequence[BaseProcess], patience_s: float) -> None:
    for child in children:
        child.join(timeout=patience_s)
        if child.is_alive():
            child.terminate()
            child.join()


def _as_member(rank: int, count: int, meeting: str, work: Callable[[Processes], Any]) -> Any:
    with _loopback(), _exchange():
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=TIMEOUT)
    try:
        return work(Processes(rank, count))
    finally:
        dist.destroy_process_group()


@contextmanager
def _loopback() -> Iterator[None]:
    """Gloo meets on this machine's own interface, whatever its host name resolves to."""
    name, before = "GLOO_SOCKET_IFNAME", os.environ.get("GLOO_SOCKET_IFNAME")
    if before is None and "lo" in (interface for _, interface in socket.if_nameindex()):
        os.environ[name] = "lo"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)


def _child(rank: int, count: int, meeting: str, payload: bytes, threads: int) -> None:
    """Entry point of a started process."""
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's, which ends this one
    try:
        _as_member(rank, count, meeting, pickle.loads(payload))
    except GnomonError as error:
        print(f"process {rank} of {count}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
