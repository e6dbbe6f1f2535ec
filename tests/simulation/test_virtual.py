"""Networks in virtual time: gradients computed together and late, against those computed one by one at once."""

import numpy as np
import pytest
import torch

from stalewise.errors import InputError
from stalewise.protocol import Again, Cancel, Deliveries, Drop, Expire, Start, Step, Unsent, parse_compression
from stalewise.simulation import replay
from stalewise.simulation.loop import TRAINER, VirtualCluster
from stalewise.simulation.network import NetworkRun, advance, compensated, mean_gradient
from stalewise.study import Workload, make_study
from stalewise.traces import Trace
from stalewise.workloads import load_network
from stalewise.workloads.compressor import Compressor
from stalewise.workloads.network import FEWEST
from stalewise.workloads.threads import threads

DIGITS = load_network(Workload(kind="digits-mlp"))
SCHEDULES = {
    "async": {"policy": "async"},
    "sync": {"policy": "sync", "momentum": 0.5},
    "backup": {"policy": "k-sync", "group": 5},
    "cancelling": {"policy": "k-batch-sync", "group": 5},
    "buffered": {"policy": "k-batch-async", "group": 3, "momentum": 0.9, "staleness_weight": "polynomial(0.5)"},
    "dropping": {"policy": "async", "max_staleness": 6},
    "stopping": {"policy": "ringmaster", "max_staleness": 6, "on_stale": "cancel", "optimizer": "Adam"},
    "waiting": {"policy": "async", "max_staleness": 8, "on_stale": "wait"},
    "compensated": {"policy": "async", "delay_compensation": 2.0},
    "local": {"policy": "async", "local_steps": 3},
    "small": {"policy": "ringmaster", "max_staleness": 6, "on_stale": "cancel", "compression": "top-k(0.05)"},
}
TRIGGERED = {
    "triggered": {"policy": "event-triggered", "trigger": 1.2},
    "kept": {"policy": "event-triggered", "trigger": 1.2, "on_quiet": "keep", "compression": "bfloat16"},
    "sparse": {"policy": "event-triggered", "trigger": 1.2, "compression": "top-k(0.05)"},
}
TRAINED = {"trained": {"policy": "producer-consumer", "group": 4, "max_staleness": 3}}


def study_of(schedule, workers=8, **cluster):
    rate = 0.002 if "optimizer" in schedule else 0.02
    return make_study(
        {
            "workload": {"kind": "digits-mlp"},
            "cluster": {"workers": workers, "compute": "gamma(1, 3)", **cluster},
            "schedule": {"learning_rate": rate, "batch_size": 16, **schedule},
            "target": {"loss": 1e-6},
        }
    )


class AtOnce:
    """The reference: each gradient is computed when its worker starts, one by one."""

    def __init__(self, study, seed):
        self.study, self.seed, self.x = study, seed, [DIGITS.start(seed)]
        self.index, self.flight, self.held = [0] * study.active_workers, {}, Deliveries()
        self.rows, self.staleness = [], []
        schedule = study.schedule
        self.packer = Compressor(parse_compression(schedule.compression), DIGITS.size)
        self.weight = torch.nn.Parameter(torch.zeros(DIGITS.size))
        if schedule.optimizer == "Adam":
            self.optimizer = torch.optim.Adam([self.weight], lr=study.learning_rate)
        else:
            self.optimizer = torch.optim.SGD([self.weight], lr=study.learning_rate, momentum=schedule.momentum)

    def until(self, end):
        server = self.study.server()
        rng = np.random.default_rng(np.random.SeedSequence(self.seed).spawn(2)[0])
        cluster = VirtualCluster(self.study, server, rng, lambda w: float(np.linalg.norm(self.flight[w]["gradient"])))
        for instruction in cluster.first:
            self.obey(instruction, 0.0)
        while cluster.next_time <= end:
            now, worker, instructions = next(cluster)
            if worker != TRAINER:
                if Unsent(worker) not in instructions:
                    self.sent(worker)
                self.flight[worker]["end"] = now
                self.held.add(worker, self.flight[worker])
            for instruction in instructions:
                self.obey(instruction, now)
        return self

    def sent(self, worker):
        row = self.flight[worker]
        row["sent"] = self.packer.sent(worker, row["gradient"])

    def start(self, worker, version, now):
        steps = self.study.schedule.local_steps
        name = (self.seed, worker, self.index[worker])
        self.index[worker] += steps
        gradient = DIGITS.local_gradient(self.x[version], name, 16, steps, self.study.learning_rate)
        self.flight[worker] = row = {"worker": worker, "start": now, "pulled": version, "gradient": gradient}
        self.rows.append(row)

    def obey(self, instruction, now):
        match instruction:
            case Start(worker=worker, version=version):
                self.start(worker, version, now)
            case Again(worker=worker):
                self.start(worker, self.flight[worker]["pulled"], now)
            case Cancel(worker=worker):
                del self.flight[worker]
            case Drop(worker=worker) | Unsent(worker=worker):
                self.held.last(worker)
            case Expire(worker=worker):
                self.held.oldest(worker)
            case Step() as step:
                rows = self.held.used(step)
                strength = self.study.schedule.delay_compensation
                gradients = [compensated(row["sent"], self.x[row["pulled"]], self.x[-1], strength) for row in rows]
                for row in rows:
                    row["applied"] = step.version - 1
                self.staleness += [one.staleness for one in step.gradients]
                self.weight.data = torch.from_numpy(self.x[-1].copy())
                self.weight.grad = torch.from_numpy(mean_gradient(gradients, [c.weight for c in step.gradients]).copy())
                self.optimizer.step()
                self.x.append(self.weight.data.numpy().copy())

    def trace(self):
        rows = sorted(self.rows, key=lambda row: row.get("end", 1e9))
        ended = np.array(["end" in row for row in rows])
        end = np.array([row.get("end", row["start"]) for row in rows])
        order = np.argsort(np.where(ended, end, np.inf), kind="stable")
        versions = {
            f"{name}_version": np.array([row.get(name, np.nan) for row in rows]) for name in ("pulled", "applied")
        }
        return Trace(
            np.array([str(row["worker"]) for row in rows])[order], np.array([row["start"] for row in rows])[order],
            end[order], {name: values[order] for name, values in versions.items()}, censored=~ended[order],
        )  # fmt: skip


@pytest.mark.parametrize("name", [*SCHEDULES, *TRIGGERED, *TRAINED, "linked", "linked and triggered"])
def test_together_is_one_by_one(name):
    """Computed late and together, over three seeds, a run goes as it does one by one: the same steps and staleness of
    every policy, and the same parameters up to rounding."""
    cluster = {"service": "exponential(0.05)"} if name in ("trained", "linked", "linked and triggered") else {}
    schedule = (SCHEDULES | TRIGGERED | TRAINED).get(name) or (
        TRIGGERED["triggered"] if "trig" in name else {"policy": "async"}
    )
    study = study_of(schedule, **cluster)
    assert DIGITS.at_once(16) >= FEWEST
    runs = [NetworkRun(study, DIGITS, seed, DIGITS.start(seed)) for seed in range(3)]
    advance(runs, 6.0 * study.workers().mean_cycle)
    for seed, run in enumerate(runs):
        expected = AtOnce(study, seed).until(run.time[-1])
        assert run.server.version == len(expected.x) - 1 >= 3
        assert sorted(run.counts.elements()) == sorted(expected.staleness)
        assert sum(run._index.values()) == sum(expected.index)
        moved = np.linalg.norm(expected.x[-1] - expected.x[0])
        assert np.linalg.norm(run.parameters - expected.x[-1]) < 1e-4 * moved


@pytest.mark.parametrize("name", [*SCHEDULES, *TRIGGERED])
def test_recorded_order_replays_bit_for_bit(name):
    """The order of arrivals alone brings back the parameters of a run, to the last bit."""
    study = study_of((SCHEDULES | TRIGGERED)[name])
    run = NetworkRun(study, DIGITS, 1, DIGITS.start(1))
    advance([run], 5.0 * study.workers().mean_cycle, exactly=True)
    recorded = AtOnce(study, 1).until(run.time[-1])
    again = replay(study, recorded.trace(), seed=1, network=DIGITS)
    np.testing.assert_array_equal(again.parameters, run.parameters)
    assert again.tally == run.server.tally


@pytest.mark.parametrize("name", ["async", "sync", "buffered", "dropping", "stopping", "cancelling"])
def test_rows_alone_tell_the_parameters(name):
    """Without any server: the versions in a trace's rows, and the order of their ends, give the replayed parameters."""
    study = study_of(SCHEDULES[name])
    trace = AtOnce(study, 0).until(6.0).trace()
    index = np.zeros(len(trace), int)
    for label in set(trace.worker):
        rows = np.flatnonzero(trace.worker == label)
        index[rows[np.argsort(trace.start[rows], kind="stable")]] = np.arange(len(rows))
    pulled, applied = (trace.optional[f"{name}_version"] for name in ("pulled", "applied"))
    x = [DIGITS.start(0)]
    weight = torch.nn.Parameter(torch.zeros(DIGITS.size))
    adam = study.schedule.optimizer == "Adam"
    optimizer = (
        torch.optim.Adam([weight], study.learning_rate) if adam
        else torch.optim.SGD([weight], study.learning_rate, momentum=study.schedule.momentum)
    )  # fmt: skip
    for version in range(int(np.nanmax(applied)) + 1):
        taken = np.flatnonzero(applied == version)
        with threads(1):  # as replay: more round sums in another order on some processors
            gradients = [DIGITS.gradient(x[int(pulled[r])], (0, int(trace.worker[r]), index[r]), 16)[0] for r in taken]
        if name == "buffered":
            factors = (1.0 + version - pulled[taken]) ** -0.5
            gradients = [np.float32(f) * g for f, g in zip(factors, gradients, strict=True)]
        mean = gradients[0] if len(gradients) == 1 else np.mean(gradients, axis=0, dtype=np.float32)
        weight.data, weight.grad = torch.from_numpy(x[-1].copy()), torch.from_numpy(mean)
        optimizer.step()
        x.append(weight.data.numpy().copy())
    assert len(x) > 3
    np.testing.assert_array_equal(replay(study, trace, network=DIGITS).parameters, x[-1])


def test_foreign_traces_are_refused():
    """A trace of another policy, of other workers or of a trainer, and one that a gradient is missing from."""
    study = study_of(SCHEDULES["async"])
    trace = AtOnce(study, 0).until(3.0).trace()
    with pytest.raises(InputError, match=r"pulled_version of arrival \d+, of worker \d, must be \d+ under .* policy"):
        replay(study_of(SCHEDULES["buffered"]), trace, network=DIGITS)
    with pytest.raises(InputError, match=r"arrival \d+ is of worker \d, which has no gradient in flight then"):
        replay(study_of(SCHEDULES["sync"]), trace, network=DIGITS)
    with pytest.raises(InputError, match=r"worker must be 0 to 3, as the study has them, got '[4-7]'"):
        replay(study_of(SCHEDULES["async"], workers=4), trace, network=DIGITS)
    with pytest.raises(InputError, match="does not tell when a trainer's steps ended"):
        replay(study_of(TRAINED["trained"], service="constant(0.1)"), trace, network=DIGITS)
    keep = np.arange(len(trace)) != 5
    short = Trace(trace.worker[keep], trace.start[keep], trace.end[keep],
                  {k: v[keep] for k, v in trace.optional.items()}, censored=trace.censored[keep])  # fmt: skip
    with pytest.raises(InputError, match=r"_version of arrival \d+"):
        replay(study, short, network=DIGITS)
