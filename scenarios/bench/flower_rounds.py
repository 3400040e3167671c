"""Rounds of eight Flower clients that do not train, in Flower's simulation.

`rounds.py` starts this with a Python that has Flower; it prints one line of JSON. Clients send back the one array of
float32 that they were given, and FedAvg averages; there is no evaluation. A round ends where the strategy would
evaluate the average on the server. Processor time is that of this process and of all that descend from it, Ray's
daemons and workers, as /proc has it when the first and when the last timed round end, so starting them does not count.
Ray hands arrays over in shared memory, so there are no bytes on a network to count.
"""

import os

# Before they are imported, as they look only then: nothing is told to others.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from importlib.metadata import version  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402
from flwr.serverapp import ServerApp  # noqa: E402
from flwr.serverapp.strategy import FedAvg  # noqa: E402
from flwr.simulation import run_simulation  # noqa: E402


def processor_seconds():
    """Processor time of this process and its descendants, and of those of their children that they have waited for."""
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold spaces.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            # It has ended in the meantime.
            continue
        process = int(stat.parent.name)
        # In the manual's order, from the third: state, parent; the 14th to 17th are the times.
        parents[process] = int(fields[1])
        ticks[process] = sum(map(int, fields[11:15]))

    def ours(process):
        while process not in (os.getpid(), 0):
            process = parents.get(process, 0)
        return process != 0

    return sum(ticks[process] for process in ticks if ours(process)) / os.sysconf("SC_CLK_TCK")


def simulate(nodes, size, first, rounds):
    """Runs all rounds; gives the times at which they ended, and the processor times at the two ends of those timed."""
    ends, processor = [], []
    client, server = ClientApp(), ServerApp()

    @client.train()
    def train(message, _):
        content = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=message)

    def ended(number, _):
        if number in (first, first + rounds):
            processor.append(processor_seconds())
        ends.append(time.monotonic())

    @server.main()
    def main(grid, _):
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
        arrays = ArrayRecord([np.zeros(size // 4, dtype=np.float32)])
        strategy.start(grid, arrays, num_rounds=first + rounds, evaluate_fn=ended)

    # A worker for each core; by default one takes two.
    run_simulation(server, client, nodes, backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}})
    return ends[first:], processor


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--nodes", type=int, required=True)
    flags.add_argument("--bytes", type=int, required=True)
    flags.add_argument("--first", type=int, required=True, help="rounds before those that are timed")
    flags.add_argument("--rounds", type=int, required=True)
    given = flags.parse_args()
    # Flower and Ray write to the standard output, too.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    ends, processor = simulate(given.nodes, given.bytes, given.first, given.rounds)
    if len(ends) != given.rounds + 1:
        sys.exit(f"flower: only {len(ends)} rounds ended")
    measured = {
        "version": version("flwr"),
        "seconds": [b - a for a, b in zip(ends, ends[1:])],
        "cpu_seconds": (processor[1] - processor[0]) / given.rounds,
        "sent_bytes": None,
    }
    print(json.dumps(measured), file=output)


if __name__ == "__main__":
    main()
