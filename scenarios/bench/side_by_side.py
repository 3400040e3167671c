#!/usr/bin/env python3
"""One training step of HeteroTune beside the same step in PyTorch: same model, weights, inputs and optimiser.

    python3 scenarios/bench/side_by_side.py [--binary target/release/heterotune] [--threads 1 2] [--runs 7] [--json FILE]

Makes a virtual environment beside itself and installs PyTorch for the CPU into it (PyPI; some GB) unless it runs in one
that has torch. For each model it first compares losses and gradients, and times nothing where they differ by more than
1e-3. Then both take turns, pinned to the same cores; ratios are medians over the turns. Memory is what the kernel says
that a process had resident at the most, as /usr/bin/time does.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHAPES = ["decoder", "encoder", "vit"]
TOLERANCE = 1e-3


def with_torch():
    """Starts this script again with a Python that has torch, where this one has none."""
    # Not imported: what a process has in memory counts for those that it starts, too.
    if importlib.util.find_spec("torch"):
        return
    if os.environ.get("HETEROTUNE_BENCH_VENV"):
        sys.exit("PyTorch could not be installed")
    home = HERE / ".venv"
    python = home / "bin" / "python"
    if not python.exists():
        print(f"installing PyTorch into {home}", file=sys.stderr)
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "torch", "numpy", "safetensors"], check=True)
    os.execve(python, [python, *sys.argv], {**os.environ, "HETEROTUNE_BENCH_VENV": "1"})


def run(command, threads):
    """Runs a command on the first cores, so many threads; gives its standard output and its peak memory in bytes."""
    settings = {name: str(threads) for name in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]}
    cores = set(sorted(os.sched_getaffinity(0))[:threads])
    child = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        env={**os.environ, **settings},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    output = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{command} failed")
    return output, used.ru_maxrss * 1024


def ours(binary, shape, threads, steps, *flags):
    output, peak = run([binary, "bench", "step", shape, "--steps", steps, "--json", *flags], threads)
    return {**json.loads(output), "peak_bytes": peak}


def theirs(folder, shape, threads, steps, mode):
    output, peak = run([sys.executable, HERE / "torch_step.py", folder, shape, mode, steps], threads)
    return {**json.loads(output), "peak_bytes": peak}


def check(binary, folder, shape):
    """Losses and gradients, side by side; the largest relative difference."""
    subprocess.run([binary, "bench", "step", shape, "--write", folder], check=True)
    output, _ = run([sys.executable, HERE / "torch_step.py", folder, shape, "check", 0], 1)
    differences = json.loads(output)
    worst = max(differences, key=differences.get)
    if differences[worst] > TOLERANCE:
        sys.exit(f"{shape}: {worst} differs by {differences[worst]:.2g}, so the two do not compute the same; not timed")
    return worst, differences[worst]


def median(values):
    return statistics.median(values)


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--binary", default=HERE.parent.parent / "target" / "release" / "heterotune")
    flags.add_argument("--shapes", nargs="+", default=SHAPES, choices=SHAPES)
    flags.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    flags.add_argument("--runs", type=int, default=7)
    flags.add_argument("--steps", type=int, default=4)
    flags.add_argument("--json", type=Path)
    given = flags.parse_args()
    with_torch()
    rows = []
    who = ["ours", "ours, --checkpoint", "PyTorch", "PyTorch, full"]
    seconds, memory = [f"CPU s, {name}" for name in who], [f"MB, {name}" for name in who]
    columns = ["model", "threads", *seconds, "CPU ratio", "time ratio", *memory]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for shape in given.shapes:
        with tempfile.TemporaryDirectory() as folder:
            worst, difference = check(given.binary, folder, shape)
            print(f"{shape}: loss and gradients agree; {worst} differs most, by {difference:.1e}", file=sys.stderr)
            for threads in given.threads:
                turns = []
                for _ in range(given.runs):
                    turns.append({
                        "ours": ours(given.binary, shape, threads, given.steps, "--from", folder),
                        "lean": ours(given.binary, shape, threads, given.steps, "--from", folder, "--checkpoint"),
                        "torch": theirs(folder, shape, threads, given.steps, "adapters"),
                        "full": theirs(folder, shape, threads, given.steps, "full"),
                    })
                of = lambda who, what: median([turn[who][what] for turn in turns])
                ratio = lambda who, what: median([turn["ours"][what] / turn[who][what] for turn in turns])
                rows.append({
                    "model": shape,
                    "threads": threads,
                    **{f"{who}_{what}": of(who, what) for who in turns[0] for what in ["cpu_seconds", "seconds"]},
                    **{f"{who}_peak_bytes": of(who, "peak_bytes") for who in turns[0]},
                    "cpu_ratio": ratio("torch", "cpu_seconds"),
                    "seconds_ratio": ratio("torch", "seconds"),
                })
                row = rows[-1]
                seconds = [f"{row[f'{who}_cpu_seconds']:.2f}" for who in turns[0]]
                memory = [f"{row[f'{who}_peak_bytes'] / 1e6:.0f}" for who in turns[0]]
                ratios = [f"{row['cpu_ratio']:.2f}", f"{row['seconds_ratio']:.2f}"]
                print(f"| {' | '.join([shape, str(threads), *seconds, *ratios, *memory])} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
