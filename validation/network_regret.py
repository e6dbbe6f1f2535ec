"""Regret of a network's plan: what it found, against a sweep over the same knobs in virtual time.

For each workload the plan searches every knob; the sweep runs all workers under every policy and group below, learning
rates by factors of two over a range of 64, momentum 0 and 0.9, each with 3 seeds, up to 1.2 times the plan's own time
with these seeds, since only what is faster matters. Every seed has first parameters of its own. The sweep's best few
are run again with 12 fresh seeds, and the best of them and the plan's schedule with 32 others, since the least of
several is the luckiest; regret is the plan's time over the rival's, minus 1. What a sweep costs is told twice: as it
was run, with the finals of its best few, and at the least, with every run stopped at the plan's own time with the
sweep's seeds and no finals; both are less than a sweep that does not know that time would take. Goal: regret below 10 %
with at most 10 % of the sweep's gradients.

    python validation/network_regret.py --data mnist-folder [--only digits-mlp] [--cores 2]

Runs are kept in runs/network_regret and not run again.
"""

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from stalewise.errors import InputError
from stalewise.hands import Call, borrowed, identity
from stalewise.planning import plan
from stalewise.planning.arms import SPACING, opened
from stalewise.planning.search import rounded
from stalewise.prediction.modes import learning_rate_limit
from stalewise.staleness import arrivals
from stalewise.study import make_study
from stalewise.trajectory import write_atomically

EXAMPLES = Path(__file__).parents[1] / "examples"
KEEP = Path("runs/network_regret")
STUDIES = {  # kind, options, target, workers, delays
    "digits-mlp": ("digits-mlp", {}, 0.3, 16, "gamma(1, 4)"),
    "mnist-cnn": ("mnist-cnn", {"width": 4, "images": 1024}, 0.6, 16, 'trace("pai_job_1.csv")'),
    "char-transformer": ("char-transformer", {"context": 16, "width": 16, "layers": 1}, 3.0, 16, "lognormal(1, 1)"),
}
SWEPT = [
    {"policy": "sync"}, {"policy": "async"},
    *({"policy": "k-batch-sync", "group": k} for k in (1, 2, 4, 8)),
    *({"policy": "k-batch-async", "group": k} for k in (2, 4, 8)),
    *({"policy": "k-async", "group": k} for k in (4, 8)),
    *({"policy": "ringmaster", "max_staleness": s, "on_stale": "cancel"} for s in (7, 15, 30)),
]  # fmt: skip
RATES, MOMENTA = 2.0 ** np.arange(-4.0, 3.0), (0.0, 0.9)
SEEDS, FINAL, DUEL, FINALISTS = 3, 12, 32, 5
REACH, REACHED = 1.2, 4.0  # times the plan's own time; times the predicted one: three starts can double it


def study_of(name, data):
    kind, options, target, workers, law = STUDIES[name]
    workload = {"kind": kind, "options": options} | ({"data": str(data)} if kind == "mnist-cnn" else {})
    return make_study(
        {
            "workload": workload,
            "cluster": {"workers": workers, "compute": law},
            "schedule": {"batch_size": 32},
            "target": {"loss": target},
        },
        folder=EXAMPLES,
    )


def run(study, seeds, horizon, seed):
    """Time to the target, None for never, and gradients of all seeds."""
    from stalewise.simulation.engine import simulate_network

    told = simulate_network(
        study, opened(study), seeds=seeds, seed=seed, horizon=horizon, starts=seeds, spacing=SPACING
    )
    return {"time": None if told.diverges else told.time_to_target.mean, "gradients": told.gradients.computed}


def sweep(study):
    """All schedules of the sweep."""
    for structure in SWEPT:
        for momentum in MOMENTA:
            try:
                one = study.with_schedule(**structure, momentum=momentum, active_workers=study.cluster.workers)
                timing = replace(arrivals(one.with_schedule(learning_rate=1.0), share=0.05), path=None)
                limit = learning_rate_limit(one, timing).mean_square
            except InputError:
                continue
            for share in RATES:
                yield one.with_schedule(learning_rate=rounded(float(share * limit)))


def call(study, seeds, horizon, seed, who):
    schedule = study.schedule.model_dump_json(exclude_none=True)
    key = {"of": who, "schedule": schedule, "seeds": seeds, "horizon": horizon, "seed": seed}
    return Call(schedule, run, (study, seeds, horizon, seed), key)


def finite(value):
    return math.inf if value is None else value


def told(name, data, cores):
    path = KEEP / f"{name}.json"
    if path.exists():
        return json.loads(path.read_text())
    study = study_of(name, data)
    who = identity(study)
    with borrowed(study, cores=cores, folder=KEEP / "runs") as hands:
        began = time.time()
        found = plan(study, hands=hands)
        took = time.time() - began
        searched = found.gradients
        print(f"{name}: {found.reasons[0]} {searched:.0f} gradients, {took:.0f} s", flush=True)
        longest = REACHED * found.predicted.time_to_target.mean
        (own,) = hands.each([call(found.study, SEEDS, longest, 5000, who)])  # with the sweep's seeds
        mine = min(finite(own["time"]), longest)
        some = list(sweep(study))
        began = time.time()

        def say(ready):
            if ready % 20 == 0:
                print(f"  {ready} of {len(some)}, {time.time() - began:.0f} s", flush=True)

        seen = hands.each([call(one, SEEDS, REACH * mine, 5000, who) for one in some], say)
        swept = sum(one["gradients"] for one in seen) / REACH
        order = sorted(range(len(some)), key=lambda i: finite(seen[i]["time"]))
        rivals = [some[i] for i in order[:FINALISTS] if seen[i]["time"] is not None]
        reach = 3.0 * min(mine, 1.5 * found.predicted.time_to_target.mean)
        finals = hands.each([call(one, FINAL, reach, 9000, who) for one in rivals])
        ran = REACH * swept + sum(one["gradients"] for one in finals)
        times = [finite(one["time"]) for one in finals]
        best = rivals[int(np.argmin(times))] if rivals else None
        duel = hands.each([call(one, DUEL, reach, 20000, who) for one in (found.study, best) if one is not None])
    answer = {
        "name": name, "time": finite(duel[0]["time"]), "best": finite(duel[-1]["time"]),
        "searched": searched, "swept": swept, "ran": ran, "took": took,
        "pick": found.study.schedule.model_dump(exclude_none=True, exclude_defaults=True),
        "against": None if best is None else best.schedule.model_dump(exclude_none=True, exclude_defaults=True),
        "rivals": times, "schedules": len(some),
    }  # fmt: skip
    write_atomically(path, json.dumps(answer))
    return answer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of MNIST's IDX files; without it mnist-cnn is left out")
    parser.add_argument("--only", nargs="*", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--cores", type=int, default=None)
    options = parser.parse_args()
    KEEP.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        if name == "mnist-cnn" and not options.data:
            print("mnist-cnn is left out: name the folder of MNIST's IDX files with --data")
            continue
        one = told(name, options.data, options.cores)
        regret = 100 * (one["time"] / one["best"] - 1)
        shares = [100 * one["searched"] / one[of] for of in ("ran", "swept")]
        print(
            f"{name}: regret {regret:.1f} %, {one['searched']:.0f} gradients, {shares[0]:.1f} % of the sweep's "
            f"{one['ran']:.0f} ({one['schedules']} schedules), {shares[1]:.1f} % of the {one['swept']:.0f} it takes at "
            f"the least; plan {one['time']:.4g} s {one['pick']}; "
            + (f"best {one['best']:.4g} s {one['against']}" if one["against"] else "none of the sweep is as fast"),
            flush=True,
        )


if __name__ == "__main__":
    main()
