"""Runs a model in this process: how many threads are there after it that were not before the runtime was loaded?

``python count_threads.py < job.json`` prints the number.
"""

import json
import os
import sys


def main() -> None:
    request = json.load(sys.stdin)
    # Numpy's own threads, and those of whatever it needs, are not the runtime's.
    from gnomon.devices.jobs import ModelJob
    from gnomon.devices.runner import Session, import_class

    job = ModelJob.from_dict(request["job"])
    runner = import_class(request["runner"])(request["threads"], **request["options"])
    session = Session(runner, job)
    ticks = _ticks()
    for _ in range(request["runs"]):
        session.run()
    busy = [thread for thread, spent in _ticks().items() if spent > ticks.get(thread, 0)]
    print(len(busy))


def _ticks() -> dict[int, int]:
    """Processor time of each thread of this process, in ticks."""
    spent = {}
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        spent[int(thread)] = int(fields[11]) + int(fields[12])
    return spent


main()
