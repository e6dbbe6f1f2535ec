"""Theory meets reality: real runs on Ray beside what `arrivals` says of them.

digits-mlp and mnist-cnn (``--data`` names the folder of MNIST's IDX files), N = 1, 4, 8, 16 workers with injected
gamma(4) delays. Allowed: mean staleness within 2 % of N - 1, staleness law within 0.05 total variation of the
predicted one, update rate within 5 %. The first 3 N gradients, those of the common start, are left out of the
staleness. About 4,000 gradients a run (1,000 of one worker), for sampling alone makes a total variation of 0.02 to
0.03; 10 minutes in all.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from stalewise.hands.cluster import local_ray
from stalewise.staleness import arrivals
from stalewise.study import make_study
from stalewise.traces import read_trace
from stalewise.training import train

WORKERS = (1, 4, 8, 16)
CYCLE = {"digits-mlp": 0.2, "mnist-cnn": 0.4}  # mean delay [s] of 16 workers; fewer are faster in proportion, down to 4
GRADIENTS = 4000


def one(kind, workers, data):
    cycle = CYCLE[kind] * max(workers, 4) / 16
    workload = {"kind": kind} | ({"data": data} if kind == "mnist-cnn" else {})
    study = make_study(
        {
            "workload": workload,
            "cluster": {"workers": workers, "compute": f"gamma({cycle!r}, 4)"},
            "schedule": {"policy": "async", "learning_rate": 0.01},
            "target": {"loss": 1e-9},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.csv"
        told = train(study, trace_path=path, time_limit=GRADIENTS * cycle / max(workers, 4))
        seen = read_trace(path).staleness[3 * workers :].astype(int)
    said = arrivals(study)
    law = said.staleness.pmf
    length = max(len(law), seen.max() + 1)
    frequencies = np.bincount(seen, minlength=length) / len(seen)
    distance = 0.5 * np.abs(frequencies - np.pad(law, (0, length - len(law)))).sum()
    return seen.mean(), distance, told.update_rate / said.rate, len(seen), told.notes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of MNIST's IDX files; without it mnist-cnn is left out")
    options = parser.parse_args()
    kinds = ["digits-mlp"] + (["mnist-cnn"] if options.data else [])
    failed = 0
    print("workload     N  gradients  mean staleness  (N - 1)  total variation  rate over predicted")
    with local_ray():
        for kind in kinds:
            for workers in WORKERS:
                mean, distance, rate, count, notes = one(kind, workers, options.data)
                off = abs(mean - (workers - 1)) > 0.02 * (workers - 1) or distance > 0.05 or abs(rate - 1) > 0.05
                failed += off
                row = (
                    f"{kind:<11} {workers:>2} {count:>10} {mean:>15.3f} {workers - 1:>8} {distance:>16.3f} {rate:>9.3f}"
                )
                print(row, "OFF" if off else "", flush=True)
                late = [note for note in notes if "longer to compute" in note or "later than drawn" in note]
                print("   ", "; ".join(late), flush=True)
    print(f"{failed} rows off")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
