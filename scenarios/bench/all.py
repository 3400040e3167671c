#!/usr/bin/env python3
"""Everything in BENCHMARKS.md that depends on the machine, measured anew: tables in markdown, one file.

    python3 scenarios/bench/all.py [--binary target/release/heterotune] [--out bench.md] [--only step memory ..] [--quick]

Leave the machine alone meanwhile: it takes about an hour on two cores, most of it side_by_side.py and rounds.py, which
install PyTorch, Flower and p2pfl (see there). --quick takes fewer turns. HETEROTUNE_DATA names the folder of models and
data for the codecs' table on TREC, which is left out without it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
STEPS = {"decoder": ["--batch", "8", "--tokens", "128"], "encoder": ["--batch", "32", "--tokens", "64"], "vit": ["--batch", "8"]}
CODECS = ["f32", "q8", "q4", "sign", "topk"]
# All that the network knows has to go through updates.
FROM_ZERO = {'readout = "statistics"': 'readout = "trained"', "steps = 5": "steps = 20", "rate = 0.001": "rate = 0.015"}


def output(command, **settings):
    print("$", *command, file=sys.stderr, flush=True)
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True, **settings).stdout


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"


def step(given):
    """A training step beside PyTorch's."""
    return output([sys.executable, HERE / "side_by_side.py", "--binary", given.binary, "--runs", 2 if given.quick else 7])


def memory(given):
    """What `plan` says, and what is so, on one thread."""
    one = dict(preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
    rows = []
    for shape, size in STEPS.items():
        with tempfile.TemporaryDirectory() as folder:
            output([given.binary, "bench", "step", shape, "--write", folder], **one)
            for flags in [[], ["--checkpoint"], ["--cache", "memory"], ["--cache", "disk"], ["--precision", "q8"], ["--precision", "q4"]]:
                bench = [given.binary, "bench", "step", shape, "--from", folder, "--steps", 3, "--threads", 1, "--json"]
                took = json.loads(output([*bench, *flags], **one))
                plan = [given.binary, "plan", "--backbone", folder, "--charter", f"{folder}/charter.toml", *size, "--json"]
                planned = json.loads(output([*plan, *flags], **one))
                seconds, peak = took["seconds"], took["peak_bytes"]
                mb = [f"{bytes / 1e6:.0f}" for bytes in [peak, planned["peak"]]]
                rows.append([shape, " ".join(flags), *mb, f"{seconds:.2f}", f"{planned['seconds']:.2f}"])
    return table(["model", "flags", "MB", "planned", "s", "planned"], rows)


def rounds(given):
    """A round of eight nodes, beside Flower and p2pfl."""
    return output([sys.executable, HERE / "rounds.py", "--binary", given.binary, "--turns", 1 if given.quick else 3])


def codec(given):
    """Writing and reading an update of a million values."""
    return "```\n" + output([given.binary, "bench", "codec"]) + "```\n"


def fusion(given):
    """Fusing 64 updates of a million values."""
    told = [output([given.binary, "bench", "fusion", "--threads", threads]) for threads in [1, 2]]
    return "```\n" + "\n".join(told) + "```\n"


def codecs(given):
    """Accuracy and bytes with every codec, seeds 1 to 3: as the scenario is, and from zero."""
    rows = []
    scenarios = ["quickstart"] + (["trec"] if os.environ.get("HETEROTUNE_DATA") else [])
    for scenario in scenarios:
        text = (ROOT / "scenarios" / f"{scenario}.toml").read_text()
        for kind, changes in [("as it is", {}), ("from zero", FROM_ZERO)]:
            for name in CODECS:
                changed = text
                for old, new in {**changes, 'codec = { kind = "q8" }': f'codec = {{ kind = "{name}" }}'}.items():
                    if old not in changed:
                        sys.exit(f"{scenario}.toml lacks {old}")
                    changed = changed.replace(old, new)
                # Paths in it begin at its folder.
                file = ROOT / "scenarios" / f".codec-{scenario}.toml"
                file.write_text(changed)
                try:
                    with tempfile.TemporaryDirectory() as folder:
                        run = [given.binary, "scenario", "run", file, "--json", "--out", f"{folder}/out"]
                        runs = [json.loads(output([*run, "--seed", seed])) for seed in ([1] if given.quick else [1, 2, 3])]
                finally:
                    file.unlink()
                sent = sum(run["bytes"]["sent_per_node_per_round"] for run in runs) / len(runs)
                scores = ", ".join(f"{run['mean']['network_global']:.3f}" for run in runs)
                rows.append([scenario, kind, name, f"{sent / 1e3:.0f} kB", scores])
    return table(["scenario", "", "codec", "sent a node and round", "global accuracy by seed"], rows)


def operations(given):
    """Single operations, beside the tensor library's (criterion)."""
    told = output(["cargo", "bench", "-p", "heterotune", "--bench", "ops", "--", "--quick"], cwd=ROOT)
    lines = [line for line in told.splitlines() if "time:" in line]
    return "```\n" + "\n".join(lines) + "\n```\n"


def worlds(given):
    """Networks in virtual time."""
    nodes, count = (100, 5) if given.quick else (1000, 30)
    flags = ["--nodes", nodes, "--rounds", count, "--loss", 0.2, "--churn", 0.05, "--seed", 7]
    return "```\n" + output([given.binary, "simulate", *flags]) + "```\n"


SECTIONS = [step, memory, rounds, codec, fusion, codecs, operations, worlds]


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "heterotune")
    flags.add_argument("--out", type=Path, default=Path("bench.md"))
    flags.add_argument("--only", nargs="+", default=[section.__name__ for section in SECTIONS], metavar="SECTION")
    flags.add_argument("--quick", action="store_true")
    given = flags.parse_args()
    unknown = set(given.only) - {section.__name__ for section in SECTIONS}
    if unknown:
        sys.exit(f"no section is called {', '.join(sorted(unknown))}: take of {', '.join(s.__name__ for s in SECTIONS)}")
    given.binary = given.binary.resolve()
    told = [f"Measured on {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before.\n"]
    for section in SECTIONS:
        if section.__name__ in given.only:
            told.append(f"## {section.__doc__}\n\n{section(given)}")
            given.out.write_text("\n".join(told))
    print(f"written to {given.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
