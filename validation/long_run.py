"""A run of 200,000 updates in which memory does not grow: resident memory of the server and of the worker processes.

digits-mlp, four workers, gradients as fast as they come, with trace and checkpoints. Memory at 20,000 updates and at
the end; allowed: 2 % and 4 MB more. About two minutes.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from stalewise.hands.cluster import local_ray
from stalewise.study import make_study
from stalewise.training import train

FIRST = 20_000


def resident(process):
    """Megabytes of RAM of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def processes():
    """This one, and Ray workers that compute gradients."""
    hosts = [p.name for p in Path("/proc").iterdir() if p.name.isdigit() and _name(p).startswith(b"ray::Host")]
    return ["self", *sorted(hosts)]


def _name(process):
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200_000)
    options = parser.parse_args()
    study = make_study(
        {
            "workload": {"kind": "digits-mlp"},
            "cluster": {"workers": 4, "compute": "constant(0.002)"},
            "schedule": {"policy": "async", "learning_rate": 0.001},
            "target": {"loss": 1e-9},
        }
    )
    seen = []

    def progress(_share, message):
        rate = float(message.split(" updates/s")[0].rpartition(" ")[2]) if "updates/s" in message else 0.0
        seen.append((rate, {p: resident(p) for p in processes()}))

    with local_ray(), tempfile.TemporaryDirectory() as folder:
        told = train(study, compute="real", folder=folder, time_limit=3.0)
        rate = told.update_rate
        seen.clear()
        told = train(study, compute="real", folder=folder, time_limit=1.1 * options.updates / rate, progress=progress)
    memory = [m for _, m in seen if len(m) > 1]
    early = memory[min(len(memory) - 1, int(len(memory) * FIRST / told.updates[-1]))]
    late = memory[-1]
    grown = False
    for process in late:
        before, after = early.get(process, late[process]), late[process]
        grown |= after > 1.02 * before + 4.0
        print(f"{process}: {before:.1f} MB at {FIRST} updates, {after:.1f} MB at {told.updates[-1]:.0f}")
    print(f"{told.update_rate:.0f} updates/s, {len(told.time)} losses kept{', IT GROWS' if grown else ''}")
    return 1 if grown or told.updates[-1] < options.updates else 0


if __name__ == "__main__":
    sys.exit(main())
