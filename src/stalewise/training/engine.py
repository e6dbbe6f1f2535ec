"""`train`: a study in real time. Ray workers compute, the driver is the server, the protocol decides."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from stalewise import checks
from stalewise.delays.compiled import DelayStream, encode
from stalewise.errors import InputError, NotConvergedError
from stalewise.protocol import Again, Cancel, Deliveries, Drop, Expire, Instruction, Start, Step, Train, Unsent
from stalewise.simulation.network import BLOW_UP, compensated, mean_gradient
from stalewise.study import Study
from stalewise.traces import TraceWriter
from stalewise.training.fleet import REST_AFTER_LOSS, Fleet, Outcome
from stalewise.training.local_ray import local_ray
from stalewise.trajectory import DelaySummary, Gradients, StalenessSummary, TargetTime, Trajectory, settling_time
from stalewise.workloads import open_network

if TYPE_CHECKING:
    from stalewise.workloads.network import Network

Progress = Callable[[float, str], None]
MOST_CYCLES = 2000
EVALUATION_SHARE = 0.08  # of the driver's time, at most
MOST_LOSSES = 1000


def train(
    study: Study,
    *,
    seed: int = 0,
    compute: Literal["inject", "real"] = "inject",
    trace_path: str | Path | None = None,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> Trajectory:
    """Train for real, on a local Ray.

    Args:
        study: A network study; its schedule needs a policy and a learning rate.
        seed: Of the first parameters, the batches and the injected delays: the same as in virtual time.
        compute: "inject": workers compute, then sleep out a delay drawn from ``cluster``, so that one laptop plays a
            whole cluster. "real": gradients take as long as they take, one process a worker.
        trace_path: Where to write one row a gradient: under this name with ``.partial`` while it runs.
        time_limit: Stop here at the latest [s]; default ``target.time_limit``, else 2000 mean cycles.
        progress: Called with the fraction done and a message.

    Returns:
        Trajectory with engine "train". The run ends when the loss has stayed below the target for 30 % longer than it
        took (and 5 mean cycles), at the time limit, or when it blows up.

    Raises:
        InputError: The study is a quadratic; the trace cannot be written, or the study reads that very file.
        NotConvergedError: Worker processes kept dying.
    """
    if study.workload.is_quadratic:
        raise InputError('workload.kind must be a network for train, got "quadratic"; use simulate for quadratics')
    checks.one_of("compute", compute, ("inject", "real"))
    if time_limit is not None:
        checks.positive("time_limit", time_limit, "seconds")
    checks.at_least("seed", seed, 0)
    study.server()
    assert study.learning_rate > 0
    if trace_path is not None and Path(trace_path).resolve() in {p.resolve() for p in study.cluster.sources.values()}:
        raise InputError(f"trace_path: the study reads {str(trace_path)!r}, which the run would replace")
    network, study = open_network(study)
    with ExitStack() as stack:
        writer = stack.enter_context(TraceWriter(trace_path)) if trace_path else None
        ray = stack.enter_context(local_ray())
        if progress:
            progress(0.0, "starting workers")
        fleet = Fleet(ray, study, real=compute == "real")
        run = _Run(study, network, fleet, seed, inject=compute == "inject", writer=writer)
        limit = time_limit or study.target.time_limit or MOST_CYCLES * run.cycle
        run.until_done(limit, progress)
    return run.trajectory()


class _Run:
    """The server's side of one training run."""

    def __init__(
        self, study: Study, network: "Network", fleet: Fleet, seed: int, *, inject: bool,
        writer: TraceWriter | None,
    ) -> None:  # fmt: skip
        from stalewise.workloads.optimizer import Optimizer  # noqa: PLC0415  (PyTorch is an extra)

        workers, service = study.workers(), study.cluster.service_law()
        rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[0])
        self.cycle = workers.mean_cycle
        self._study, self._network, self._fleet, self._seed, self._writer = study, network, fleet, seed, writer
        self._server = study.server()
        self._delays = DelayStream(workers.encoded(), workers.count, rng) if inject else None
        self._service = DelayStream(encode(service.components(), service.mean), 1, rng) if inject else None
        self._parameters = network.start(seed)
        self._optimizer = Optimizer(study.schedule, network.size)
        self._links = inject and service.mean > 0 and not self._server.rules.trains
        self._link: deque[tuple[float, Outcome]] = deque()
        self._link_free = 0.0
        self._trained_at = math.inf
        self._delivered: Deliveries[Outcome] = Deliveries()
        self._staleness: Counter[int] = Counter()
        self._ages: list[float] = []
        self._overruns: list[float] = []
        self._late = self._losses = self._refused = 0
        self._time, self._loss, self._updates = [0.0], [network.loss(self._parameters)], [0]
        self._ended = ""
        self._began = self._evaluated = 0.0

    def until_done(self, limit: float, progress: Progress | None) -> None:
        """Drive the protocol until the target holds, the limit, or a blow-up."""
        self._began = time.monotonic()
        self._obey(self._server.begin(), first=True)
        cost = 0.0
        while not self._ended:
            self._next()
            now = time.monotonic() - self._began
            if now - self._time[-1] >= max(0.5 * self.cycle, cost / EVALUATION_SHARE) or now >= limit:
                started = time.monotonic()
                self._record(now)
                cost = time.monotonic() - started
                self._ended = self._why_stop(now, limit)
                if progress:
                    progress(min(now / limit, 1.0), self._message(now))
        for outcome in self._delivered.left():
            self._write(outcome, applied=None)
        for _, outcome in self._link:
            self._write_unfinished(outcome.worker, outcome.began)
        for worker, began in self._fleet.in_flight():
            self._write_unfinished(worker, began)

    def _next(self) -> None:
        """Wait for what happens next, 0.1 s at most, and act on it."""
        due = min(self._link[0][0] if self._link else math.inf, self._trained_at)
        outcome = self._fleet.collect(timeout=min(max(due - time.monotonic(), 0.0), 0.1))
        if outcome is not None:
            self._computed(outcome)
        now = time.monotonic()
        while self._link and self._link[0][0] <= now:
            self._arrive(self._link.popleft()[1])
        if self._trained_at <= now:
            self._trained_at = math.inf
            self._obey(self._server.trained())

    def _computed(self, outcome: Outcome) -> None:
        """A gradient is there: it is lost, goes over the link, or has arrived."""
        finished = outcome.finished
        if finished is None or not self._acceptable(finished.gradient):
            self._lose(outcome)
            return
        if outcome.drawn is not None:
            overrun = finished.ended - outcome.began - outcome.drawn
            self._overruns.append(overrun)
            self._late += finished.computed > outcome.drawn
        if self._links and self._service and not self._server.is_quiet(self._norm(finished.gradient)):
            self._link_free = max(self._link_free, finished.ended) + self._service.next(0)
            self._link.append((self._link_free, outcome))
        else:
            self._arrive(outcome)

    def _arrive(self, outcome: Outcome) -> None:
        assert outcome.finished is not None
        self._delivered.add(outcome.worker, outcome)
        self._obey(self._server.finished(outcome.worker, self._norm(outcome.finished.gradient)))

    def _norm(self, gradient: np.ndarray) -> float | None:
        return float(np.linalg.norm(gradient)) if self._server.rules.trigger > 0 else None

    def _cancel(self, worker: int) -> float:
        """Stop ``worker``'s gradient at work or on the link; says when it was begun."""
        for entry in self._link:
            if entry[1].worker == worker:
                self._link.remove(entry)
                return entry[1].began
        return self._fleet.cancel(worker)

    def _acceptable(self, gradient: np.ndarray) -> bool:
        good = gradient.shape == self._parameters.shape and bool(np.isfinite(gradient).all())
        self._refused += not good
        return good

    def _lose(self, outcome: Outcome) -> None:
        self._losses += 1
        if self._losses > MOST_LOSSES:
            raise NotConvergedError(f"training stopped: {self._losses} gradients were lost to dead or faulty workers")
        self._obey(self._server.lost(outcome.worker))
        if outcome.finished is None:
            time.sleep(REST_AFTER_LOSS)
        self._obey(self._server.joined(outcome.worker))

    def _obey(self, instructions: list[Instruction], *, first: bool = False) -> None:
        for instruction in instructions:
            match instruction:
                case Start(worker=worker):
                    self._fleet.dispatch(
                        worker, self._parameters, self._seed, self._delay(worker, first), time.monotonic()
                    )
                case Again(worker=worker):
                    self._fleet.again(worker, self._seed, self._delay(worker, first=False), time.monotonic())
                case Cancel(worker=worker):
                    self._write_unfinished(worker, self._cancel(worker))
                case Drop(worker=worker) | Unsent(worker=worker):
                    self._write(self._delivered.last(worker), applied=None)
                case Expire(worker=worker):
                    self._write(self._delivered.oldest(worker), applied=None)
                case Train():
                    self._trained_at = time.monotonic() + (self._service.next(0) if self._service else 0.0)
                case Step() as step:
                    self._step(step)

    def _step(self, step: Step) -> None:
        taken = self._delivered.used(step)
        now = time.monotonic()
        gradients = []
        for one, outcome in zip(step.gradients, taken, strict=True):
            assert outcome.finished is not None
            self._staleness[one.staleness] += 1
            self._ages.append(now - outcome.pulled)
            self._write(outcome, applied=step.version - 1, pulled=step.version - 1 - one.staleness)
            strength = self._study.schedule.delay_compensation
            gradients.append(compensated(outcome.finished.gradient, outcome.parameters, self._parameters, strength))
        weights = [one.weight for one in step.gradients]
        mean = mean_gradient(gradients, weights)
        self._parameters = self._optimizer.step(self._parameters, mean)

    def _delay(self, worker: int, first: bool) -> float | None:
        if self._delays is None:
            return None
        if first and self._study.cluster.start == "staggered":
            return self._delays.residual(worker)
        return self._delays.next(worker)

    def _write(self, outcome: Outcome, applied: int | None, pulled: int | None = None) -> None:
        if self._writer is None or outcome.finished is None:
            return
        self._writer.write(
            worker=str(outcome.worker),
            start=outcome.began - self._began,
            end=outcome.finished.ended - self._began,
            pulled_version="" if pulled is None else pulled,
            applied_version="" if applied is None else applied,
            compute=outcome.finished.computed,
        )

    def _write_unfinished(self, worker: int, began: float) -> None:
        """A gradient that never ended: a row without an end, which `read_trace` takes for censored."""
        if self._writer is not None:
            self._writer.write(worker=str(worker), start=began - self._began)

    def _record(self, now: float) -> None:
        loss = self._network.loss(self._parameters)
        self._time.append(now)
        self._loss.append(loss)
        self._updates.append(self._server.version)

    def _why_stop(self, now: float, limit: float) -> str:
        loss, target = self._loss[-1], self._study.target.loss
        if not (math.isfinite(loss) and loss < BLOW_UP * self._loss[0]):
            return "diverged"
        settled = settling_time(self._time, self._loss, target)
        if settled is not None and now >= 1.3 * settled + 5 * self.cycle:
            return "reached"
        return "limit" if now >= limit else ""

    def _message(self, now: float) -> str:
        mean = sum(k * n for k, n in self._staleness.items()) / max(sum(self._staleness.values()), 1)
        rate = self._server.version / now
        return f"loss {self._loss[-1]:.4g}, {rate:.1f} updates/s, mean staleness {mean:.2f}"

    def trajectory(self) -> Trajectory:
        """What happened."""
        study, target = self._study, self._study.target.loss
        diverged = self._ended == "diverged"
        keep = slice(None, -1) if diverged else slice(None)
        times, loss = self._time[keep], self._loss[keep]
        settled = None if diverged else settling_time(times, loss, target)
        counts = np.zeros(max(self._staleness, default=0) + 1)
        counts[list(self._staleness)] = list(self._staleness.values())
        ages = np.array(self._ages)
        return Trajectory(
            engine="train",
            study=study.as_dict(),
            seed=self._seed,
            time=times,
            updates=[float(k) for k in self._updates[keep]],
            loss=loss,
            update_rate=self._updates[-1] / self._time[-1],
            staleness=StalenessSummary.from_counts(counts),
            delay=DelaySummary.from_moments(len(ages), float(ages.sum()), float((ages**2).sum())),
            gradients=Gradients.from_tally(self._server.tally),
            mean_square_stable=False if diverged else None,
            time_to_target=TargetTime(mean=settled),
            status=self._status(settled),
            notes=self._notes(),
        )

    def _status(self, settled: float | None) -> str:
        target, end = self._study.target.loss, self._time[-1]
        if self._ended == "diverged":
            return f"diverges: the training loss grew without bound by {end:.4g} s"
        if settled is not None:
            return f"reaches loss {target:g} after {settled:.4g} s and stays below"
        return (
            f"has not settled below {target:g} by the time limit, {end:.4g} s; the loss is {self._loss[-1]:.4g} there"
        )

    def _notes(self) -> list[str]:
        score = self._network.score(self._parameters)
        notes = [] if score is None else [f"held out: {self._network.score_name} {score:.4g}"]
        if self._overruns:
            median = 1e3 * float(np.median(self._overruns))
            notes.append(f"delays injected; the median gradient came {median:.1f} ms later than drawn")
        if self._late:
            notes.append(f"{self._late} gradients took longer to compute than the delay drawn for them")
        if self._losses:
            notes.append(
                f"{self._losses} gradients were lost, {self._refused} of them refused as not finite or misshapen"
            )
        return notes
