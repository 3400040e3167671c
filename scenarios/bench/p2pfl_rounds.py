"""Rounds of eight p2pfl nodes that do not train.

`rounds.py` starts this with a Python that has p2pfl; it prints one line of JSON. The nodes are in one process, as in
p2pfl's own examples, and speak gRPC over the loopback, or call each other in memory. Each shares one array of float32,
and all are in the train set of every round. A node's round is from one call of `fit` to the next. Processor time is
that of the process between the first such calls that are timed and the last. Bytes are those of the messages that p2pfl
logs as sent, without what gRPC and TCP put around them. Ray is off: the learners run in the nodes themselves.
"""

import argparse
import json
import os
import sys
import time
from importlib.metadata import version

import numpy as np
from p2pfl.settings import Settings

# Before anything else of p2pfl is imported, as importing it starts Ray.
Settings.general.DISABLE_RAY = True

from datasets import Dataset  # noqa: E402
from p2pfl.communication.protocols.protobuff.grpc import GrpcCommunicationProtocol  # noqa: E402
from p2pfl.communication.protocols.protobuff.memory import MemoryCommunicationProtocol  # noqa: E402
from p2pfl.learning.dataset.p2pfl_dataset import P2PFLDataset  # noqa: E402
from p2pfl.learning.frameworks.learner import Learner  # noqa: E402
from p2pfl.learning.frameworks.p2pfl_model import P2PFLModel  # noqa: E402
from p2pfl.management.logger import logger  # noqa: E402
from p2pfl.node import Node  # noqa: E402
from p2pfl.utils.topologies import TopologyFactory, TopologyType  # noqa: E402


class Array(P2PFLModel):
    """A model of one array."""

    def get_parameters(self):
        return [self.model]

    def set_parameters(self, params):
        if isinstance(params, bytes):
            params, self.additional_info = self.decode_parameters(params)
        self.model = params[0]

    def get_framework(self):
        return "numpy"


class Idle(Learner):
    """A learner that learns nothing, and notes when it should have begun, and the processor time until then."""

    def __init__(self):
        super().__init__()
        self.marks = []

    def fit(self):
        self.marks.append((time.monotonic(), time.process_time()))
        self.get_model().set_contribution([self.addr], 1)
        return self.get_model()

    def interrupt_fit(self):
        pass

    def evaluate(self):
        return {}

    def get_framework(self):
        return "numpy"


def wait_until(what, condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"p2pfl: {what} took more than {seconds} s")
        time.sleep(0.1)


def node(given, index):
    """A node, not yet connected to others."""
    memory = given.protocol == "memory"
    array = Array(np.zeros(given.bytes // 4, dtype=np.float32))
    data = P2PFLDataset(Dataset.from_dict({}), dataset_name="none")
    protocol = MemoryCommunicationProtocol() if memory else GrpcCommunicationProtocol()
    return Node(array, data, f"node-{index}" if memory else "127.0.0.1", learner=Idle(), protocol=protocol)


def simulate(given):
    """Runs all rounds; gives each node's marks from the first timed round on."""
    nodes = [node(given, index) for index in range(given.nodes)]
    for one in nodes:
        one.start()
    TopologyFactory.connect_nodes(TopologyFactory.generate_matrix(given.topology, len(nodes)), nodes)
    wait_until("to meet all nodes", lambda: all(len(one.get_neighbors()) == len(nodes) - 1 for one in nodes), 60)
    # One more, as a round is until the next one's `fit`.
    nodes[0].set_start_learning(rounds=given.first + given.rounds + 1, epochs=1, trainset_size=len(nodes))
    wait_until("the run", lambda: all(one.learning_workflow.finished for one in nodes), given.timeout)
    return [one.learner.marks[given.first :] for one in nodes]


def sent_bytes(given):
    timed = range(given.first, given.first + given.rounds)
    sent = sum(message["package_size"] for message in logger.get_messages("sent") if message["round"] in timed)
    return sent / given.rounds / given.nodes


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--nodes", type=int, required=True)
    flags.add_argument("--bytes", type=int, required=True)
    flags.add_argument("--first", type=int, required=True, help="rounds before those that are timed")
    flags.add_argument("--rounds", type=int, required=True)
    flags.add_argument("--protocol", choices=["grpc", "memory"], default="grpc")
    flags.add_argument("--topology", choices=[topology.value for topology in TopologyType], default="full")
    flags.add_argument("--settings", type=json.loads, default={}, help='JSON: {"group.NAME": value}')
    flags.add_argument("--timeout", type=float, default=1800)
    given = flags.parse_args()
    for name, value in given.settings.items():
        group, setting = name.split(".")
        setattr(getattr(Settings, group), setting, value)
    logger.set_level("ERROR")
    marks = simulate(given)
    if any(len(of_node) != given.rounds + 1 for of_node in marks):
        raise SystemExit(f"p2pfl: not all nodes took part in all rounds: {[len(of_node) for of_node in marks]}")
    began, ended = min(of_node[0][1] for of_node in marks), max(of_node[-1][1] for of_node in marks)
    measured = {
        "version": version("p2pfl"),
        "seconds": [b[0] - a[0] for of_node in marks for a, b in zip(of_node, of_node[1:])],
        "cpu_seconds": (ended - began) / given.rounds,
        "sent_bytes": sent_bytes(given),
    }
    print(json.dumps(measured), flush=True)
    # Its threads are not all daemons, and there is nothing left to be done.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
