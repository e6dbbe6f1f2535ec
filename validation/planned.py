"""A planned schedule against the usual default on Ray: mnist-cnn, ten workers with the delays of a production job.

The default is full asynchrony with all workers and the best learning rate of one worker. Both are planned for and run
from the same start, with delays replayed (injected) and real gradients, 3 seeds each, until they settle or for three
times the planned time. Times to losses are those of the mean over seeds, averaged over a tenth of the time to both
sides. Writes a folder for `stalewise report`, with both curves on the page.

    python validation/planned.py --data mnist-folder --out runs/planned
"""

import argparse
from pathlib import Path

import numpy as np

from stalewise.cli.shared import study_toml, write_answer
from stalewise.hands import borrowed, local_ray
from stalewise.planning import plan
from stalewise.prediction.pilots import smoothed
from stalewise.report import write_report
from stalewise.study import make_study
from stalewise.training import train
from stalewise.trajectory import TargetTime, settling_time, to_json

EXAMPLES = Path(__file__).parents[1] / "examples"
LOSSES = (1.0, 0.6, 0.4)
SEEDS = 3
REACH = 3.0


def study_of(data):
    return make_study(
        {
            "workload": {"kind": "mnist-cnn", "data": str(data), "options": {"width": 4, "images": 1024}},
            "cluster": {"workers": 10, "compute": 'trace("pai_job_1.csv")'},
            "schedule": {"batch_size": 32},
            "target": {"loss": LOSSES[-1]},
        },
        folder=EXAMPLES,
    )


def mean_of(runs, target):
    """One trajectory of several runs: mean loss, least and largest, on a clock that all of them reach."""
    clock = np.linspace(0.0, min(one.time[-1] for one in runs), 400)
    losses = np.array([np.interp(clock, one.time, one.loss) for one in runs])
    mean = smoothed(clock, losses.mean(axis=0))
    reached = settling_time(clock, mean, target)
    updates = np.mean([np.interp(clock, one.time, one.updates) for one in runs], axis=0)
    status = "has not settled" if reached is None else f"reaches loss {target:g} after {reached:.4g} s and stays below"
    return runs[0].model_copy(
        update={
            "time": clock.tolist(), "loss": mean.tolist(), "updates": updates.tolist(), "status": status,
            "loss_low": losses.min(axis=0).tolist(), "loss_high": losses.max(axis=0).tolist(),
            "time_to_target": TargetTime(mean=reached),
            "notes": [*runs[0].notes, f"mean of {len(runs)} runs; the band is from the least to the largest"],
        }
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of MNIST's IDX files")
    parser.add_argument("--out", type=Path, default=Path("runs/planned"))
    options = parser.parse_args()
    study = study_of(options.data)
    with borrowed(study, folder=options.out / "pilots") as hands:
        found = plan(study, hands=hands)
    for reason in found.reasons:
        print(reason, flush=True)
    default = next(one["schedule"] for one in found.baselines if one["rule"].startswith("no rule"))
    usual = study.with_schedule(**default)
    limit = REACH * found.predicted.time_to_target.mean
    curves = {}
    with local_ray():
        for name, one in (("planned", found.study), ("default", usual)):
            runs = [train(one, seed=seed, time_limit=limit) for seed in range(SEEDS)]
            curves[name] = mean_of(runs, LOSSES[-1])
            times = [settling_time(curves[name].time, curves[name].loss, loss) for loss in LOSSES]
            each = [settling_time(run.time, smoothed(run.time, run.loss), LOSSES[-1]) for run in runs]
            print(f"{name}: {one.schedule.model_dump(exclude_none=True, exclude_defaults=True)}")
            print(
                f"  time to losses {LOSSES}: {[t and round(t, 2) for t in times]} s; each run to {LOSSES[-1]:g}: {each}"
            )
    write_answer(
        options.out,
        {
            "plan.json": to_json(found.as_dict()), "predict.json": found.predicted.to_json(),
            "train.json": curves["planned"].to_json(), "train-default.json": curves["default"].to_json(),
            "planned.toml": study_toml(found.study, options.out),
        },
    )  # fmt: skip
    print(f"wrote {write_report(options.out)}")


if __name__ == "__main__":
    main()
