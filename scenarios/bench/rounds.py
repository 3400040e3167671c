#!/usr/bin/env python3
"""What a round costs besides training: eight nodes, 64 KiB to share each, of HeteroTune, Flower and p2pfl.

    python3 scenarios/bench/rounds.py [--binary target/release/heterotune] [--rounds 20] [--turns 3] [--json FILE]

- HeteroTune: `heterotune bench round`, eight processes that sign, encrypt, seal and keep all on disk, over sockets of
  the loopback. Their updates are drawn, not trained.
- Flower: its simulation, as far as it needs no training: a server and Ray's workers, which share memory, without
  sockets between nodes, signatures or encryption. It looks for results ten times a second, so no round is below 0.1 s.
- p2pfl: eight nodes in one process, as in its own examples, unsigned and unencrypted: over gRPC on the loopback, in a
  line, with its own pauses between messages and with pauses so short that they hardly matter; and calling each other in
  memory, all connected. (All connected over gRPC, version 0.4.4 stalls: a node answers with two threads, which wait for
  other nodes' while they pass on that a model has come.) Now and then it loses a model that comes before its receiver
  is in that round, and then waits; the median hardly shows it.

They do not do the same work, so the table says what an operator pays, not whose code is better. All take turns. Seconds
are from the end of one round to the end of the next, the median of all rounds and turns; processor time is that of all
processes, a round, the median of the turns. The first rounds and what starting takes do not count: HeteroTune's nodes
log their own processor time at every round's close; of the others, see `flower_rounds.py` and `p2pfl_rounds.py`. Bytes
are what a node sends: with HeteroTune all that leaves its sockets; with p2pfl its messages, without what gRPC puts
around them.

Flower and p2pfl are installed from PyPI into virtual environments beside this file (about 1 GB), unless --flower and
--p2pfl, or HETEROTUNE_BENCH_FLOWER and HETEROTUNE_BENCH_P2PFL, name a Python that has them. p2pfl needs Python 3.10 to
3.12; --python names one to make the environments with.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
NODES = 8
BYTES = 64 * 1024
FIRST = 5
# p2pfl 0.4.4 imports what it lists as an extra, and what newer versions of its dependencies no longer have.
PACKAGES = {
    "flower": ["flwr[simulation]==1.41.0"],
    "p2pfl": ["p2pfl[dp]==0.4.4", "pyarrow<21", "huggingface_hub<1"],
}
# p2pfl's settings, by its own names. With less patience, nodes of a busy machine lose each other, and models.
PATIENCE = {
    "heartbeat.TIMEOUT": 60,
    "gossip.AMOUNT_LAST_MESSAGES_SAVED": 500,
    "gossip.MODE_EXPECTATION_TIMEOUT": 2,
}
# Seconds between messages, and between models; and after how many of the latter without news a node gives up.
SHORT = {"gossip.PERIOD": 0.01, "gossip.MODELS_PERIOD": 0.05, "gossip.EXIT_ON_X_EQUAL_ROUNDS": 200}
P2PFL = {
    "p2pfl, gRPC": ("grpc", "line", PATIENCE),
    "p2pfl, gRPC, short pauses": ("grpc", "line", PATIENCE | SHORT),
    "p2pfl, in memory, short pauses": ("memory", "full", PATIENCE | SHORT),
}


def python_of(name, given):
    """A Python that has this package; where none is named, one of a virtual environment beside this file."""
    if named := getattr(given, name) or os.environ.get(f"HETEROTUNE_BENCH_{name.upper()}"):
        return named
    home = HERE / f".venv-{name}"
    python = home / "bin" / "python"
    # Written when all is installed, so that what was broken off is done anew.
    done = home / "installed.txt"
    if not done.exists() or done.read_text().split("\n") != PACKAGES[name]:
        print(f"installing {name} into {home}", file=sys.stderr)
        subprocess.run([given.python, "-m", "venv", "--clear", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES[name]], check=True)
        done.write_text("\n".join(PACKAGES[name]))
    return python


def run(command):
    """The JSON that a command prints. It works in a folder of its own, as p2pfl writes logs where it is."""
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True)
    if child.returncode != 0:
        sys.exit(f"{child.stderr[-4000:]}\n{command[0]} failed: {command}")
    return json.loads(child.stdout)


def ours(given):
    """Its seconds are the median already."""
    measured = run([given.binary.resolve(), "bench", "round", "--rounds", given.rounds, "--json"])
    return {**measured, "seconds": [measured["seconds"]]}


def theirs(script, python, given, *flags):
    return run([
        python, HERE / script, "--nodes", NODES, "--bytes", BYTES, "--first", FIRST, "--rounds", given.rounds, *flags
    ])


def systems(given):
    """By name, what takes one turn."""
    chosen = {}
    if "heterotune" in given.systems:
        chosen["HeteroTune"] = lambda: ours(given)
    if "flower" in given.systems:
        flower = python_of("flower", given)
        chosen["Flower, simulation"] = lambda: theirs("flower_rounds.py", flower, given)
    if "p2pfl" in given.systems:
        p2pfl = python_of("p2pfl", given)
        for name, (protocol, topology, settings) in P2PFL.items():
            how = ["--protocol", protocol, "--topology", topology, "--settings", json.dumps(settings)]
            chosen[name] = lambda how=how: theirs("p2pfl_rounds.py", p2pfl, given, *how)
    return chosen


def row(name, turns):
    """A line of the table, from what a system's turns measured."""
    cpu = [turn["cpu_seconds"] for turn in turns if turn["cpu_seconds"] is not None]
    sent = [turn["sent_bytes"] for turn in turns if turn["sent_bytes"] is not None]
    return {
        "system": name,
        "version": turns[0].get("version"),
        "seconds": statistics.median(seconds for turn in turns for seconds in turn["seconds"]),
        "cpu_seconds": statistics.median(cpu) if cpu else None,
        "sent_bytes": statistics.median(sent) if sent else None,
    }


def told(value, format_as):
    return "not counted" if value is None else format_as.format(value)


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--binary", type=Path, default=HERE.parent.parent / "target" / "release" / "heterotune")
    flags.add_argument("--flower", metavar="PYTHON", help="has Flower")
    flags.add_argument("--p2pfl", metavar="PYTHON", help="has p2pfl")
    flags.add_argument("--python", default=sys.executable, help="makes the virtual environments")
    every = ["heterotune", "flower", "p2pfl"]
    flags.add_argument("--systems", nargs="+", choices=every, default=every)
    flags.add_argument("--rounds", type=int, default=20, help="rounds that are timed in a turn")
    flags.add_argument("--turns", type=int, default=3)
    flags.add_argument("--json", type=Path)
    given = flags.parse_args()
    chosen = systems(given)
    turns = {name: [] for name in chosen}
    for turn in range(given.turns):
        for name, take in chosen.items():
            print(f"turn {turn + 1} of {given.turns}: {name}; load {os.getloadavg()[0]:.1f}", file=sys.stderr)
            turns[name].append(take())
    rows = [row(name, of_system) for name, of_system in turns.items()]
    print("| system | seconds a round | CPU seconds a round, all nodes | kB sent, a node and round |")
    print("|---|---|---|---|")
    for each in rows:
        name = f"{each['system']} ({each['version']})" if each["version"] else each["system"]
        cpu, sent = told(each["cpu_seconds"], "{:.3f}"), told(each["sent_bytes"] and each["sent_bytes"] / 1e3, "{:.0f}")
        print(f"| {name} | {each['seconds']:.2f} | {cpu} | {sent} |")
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "turns": turns}, indent=2) + "\n")


if __name__ == "__main__":
    main()
