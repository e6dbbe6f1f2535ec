"""`train --adapt` beside the fixed plan, for real on Ray: digits-mlp, 12 workers, gamma(4) delays of 0.15 s.

* ``same``: nothing changes. Allowed: no change is made, so that the run is the fixed plan's.
* ``slow``: a third of the workers slows down 5 times after 40 cycles.

The learning rate is two thirds of what the delays allow at the start, batches are of 128, so that speed and not
noise decides. Told for each seed: seconds until the loss, averaged over a tenth of the time passed to both sides, is
below the target for good, of the fixed and of the adaptive run, in pairs on the same machine, and what was changed.
Run by hand: ``python validation/adapt.py --seeds 3``, seven minutes.
"""

import argparse
import statistics
import sys
import time

import numpy as np

from stalewise.delays.compiled import DelayStream
from stalewise.hands.cluster import local_ray
from stalewise.prediction.pilots import smoothed
from stalewise.study import make_study
from stalewise.training import run as module
from stalewise.training import train
from stalewise.trajectory import settling_time

WORKERS, CYCLE, AFTER, SLOWER = 12, 0.15, 40, 5.0


def study(rate, target, batch):
    return make_study(
        {
            "workload": {"kind": "digits-mlp"},
            "cluster": {"workers": WORKERS, "compute": f"gamma({CYCLE}, 4)"},
            "schedule": {"policy": "async", "learning_rate": rate, "batch_size": batch},
            "target": {"loss": target, "time_limit": 120.0},
        }
    )


class Slowing(DelayStream):
    """A third of the workers slows down."""

    began = None

    def next(self, worker):
        now = time.monotonic()
        Slowing.began = Slowing.began or now
        slow = worker % 3 == 0 and now - Slowing.began > AFTER * CYCLE
        return super().next(worker) * (SLOWER if slow else 1.0)


def one(case, seed, options, *, adapt):
    Slowing.began = None
    module.DelayStream = Slowing if case == "slow" else DelayStream
    told = train(study(options.rate, options.target, options.batch), seed=seed, adapt=adapt)
    changes = [note for note in told.notes if note.startswith("after")]
    time = np.array(told.time)
    return settling_time(time, smoothed(time, np.array(told.loss)), options.target) or float("inf"), changes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--target", type=float, default=0.08)
    parser.add_argument("--batch", type=int, default=128, help="samples a gradient; with 32 noise decides at the end")
    parser.add_argument("--cases", nargs="*", default=["same", "slow"])
    options = parser.parse_args()
    failed = False
    with local_ray():
        for case in options.cases:
            ratios = []
            for seed in range(options.seeds):
                fixed, _ = one(case, seed, options, adapt=False)
                adapted, changes = one(case, seed, options, adapt=True)
                ratios.append(adapted / fixed)
                print(f"{case} seed {seed}: fixed {fixed:.2f} s, adaptive {adapted:.2f} s", *changes, sep="\n  ")
                sys.stdout.flush()
                failed |= case == "same" and bool(changes)
            ratio = statistics.median(ratios)
            print(f"{case}: adaptive over fixed {ratio:.3f} (median of {options.seeds})", flush=True)
            failed |= case == "slow" and ratio >= 1.0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
