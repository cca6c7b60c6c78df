"""Several processes on one study: each is a full worker, joined by nothing but the ledger."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from typing import Any

from ..errors import GnomonError
from .calibrate import Calibration, make_problem
from .ledger import Ledger
from .log_file import log_file
from .loop import OnEvent, run_worker
from .preparation import train_strategy
from .problem import Problem
from .setup import Components, build

log = logging.getLogger(__name__)

PARENT_CHECK_S = 1.0


def run_workers(ledger: Ledger, problem: Problem, components: Components, on_event: OnEvent | None = None) -> None:
    """Works on the study in this process and in ``study.workers - 1`` children."""
    context = multiprocessing.get_context("spawn")
    children: list[BaseProcess] = [
        context.Process(target=worker_main, args=(dict(components.config), os.getpid()), name=f"worker-{i}")
        for i in range(1, components.study.workers)
    ]
    for child in children:
        child.start()
    try:
        run_worker(ledger, problem, components, on_event)
        for child in children:  # they end by themselves, once the study is finished
            child.join()
            if child.exitcode:
                log.warning("%s ended with exit code %s; its claims were taken over", child.name, child.exitcode)
    finally:
        for child in children:
            if child.is_alive():
                child.terminate()
            child.join()


def worker_main(config: Mapping[str, Any], parent: int) -> None:
    """Entry point of a child process."""
    die_with(parent)
    try:
        components = build(config)
        ledger = Ledger(components.study.storage, components.study.name, components.space)
        ledger.open()
        components.evaluator.prepare(components.study.path, seed=components.study.seed)  # there already: loads it
        calibration = Calibration.from_dict(ledger.note("calibration"))
        problem = make_problem(components.predictor, components.objective, calibration)
        train_strategy(ledger, components, problem)  # there already: loads it
        with log_file(components.study.path):
            run_worker(ledger, problem, components)
    except KeyboardInterrupt:
        sys.exit(130)
    except GnomonError as error:
        print(f"worker {os.getpid()}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def die_with(parent: int) -> None:
    """Ends this process soon after its parent is gone, so that a killed search leaves no orphans."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
