"""The server's side of a training run: what arrives goes to the protocol, what it says is done."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stalewise.delays.compiled import DelayStream, encode
from stalewise.errors import InputError, NotConvergedError
from stalewise.protocol import (
    Again,
    Cancel,
    Deliveries,
    Drop,
    Expire,
    Hold,
    Instruction,
    Start,
    Step,
    Tally,
    Train,
    Unsent,
)
from stalewise.simulation.network import compensated, highest_loss, mean_gradient
from stalewise.study import Study
from stalewise.traces import TraceWriter
from stalewise.training.adapt import Adapter, Setting
from stalewise.training.checkpoint import save_checkpoint
from stalewise.training.fleet import OK, QUIET, Fleet, Joined, Lost, Outcome
from stalewise.training.records import Records
from stalewise.training.signals import held_signals
from stalewise.training.sinks import Sink
from stalewise.training.watch import Watch
from stalewise.trajectory import settling_time
from stalewise.workloads.threads import threads

if TYPE_CHECKING:
    from stalewise.workloads.network import Network

Progress = Callable[[float, str], None]
EVALUATION_SHARE = 0.08  # of the time, at most
MOST_REFUSED = 100  # gradients in a row, without one that could be used
WAITS = 0.1  # at most, for something to happen [s]


class _Evaluation(NamedTuple):
    """A loss that is being computed: of the parameters at that time [s], their version and row of memory.

    ``loss`` will be the loss, and what it took [s].
    """

    time: float
    version: int
    row: int
    loss: Future[tuple[float, float]]


class Run:
    """One run, from the first parameters or from a checkpoint.

    Args:
        study: What is trained.
        network: Its network.
        fleet: Its workers.
        seed: Of first parameters and injected delays.
        inject: Whether delays are drawn from the study.
        writer: Of the trace.
        watch: What was expected.
        sink: Takes metrics.
        warn: Is told what the user should know.
        adapter: Plans anew while it runs.

    Attributes:
        whole: Whether all of it, server, parameters and trace, tells of the same moment: a snapshot may be taken.
    """

    def __init__(
        self, study: Study, network: "Network", fleet: Fleet, seed: int, *, inject: bool, writer: TraceWriter | None,
        watch: Watch, sink: Sink, warn: Callable[[str], None], adapter: Adapter | None = None,
    ) -> None:  # fmt: skip
        from stalewise.workloads.optimizer import Optimizer  # noqa: PLC0415  (PyTorch is an extra)

        workers, service = study.workers(), study.cluster.service_law()
        rng, other = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
        self.cycle = workers.mean_cycle
        self.study, self.network, self.fleet, self.seed = study, network, fleet, seed
        self.server = study.server()
        self.records = Records()
        self.watch = watch
        self.ended = ""
        self.whole = False
        self._writer, self._sink, self._warn, self._adapter = writer, sink, warn, adapter
        self._delays = DelayStream(workers.encoded(), workers.count, rng) if inject else None
        self._service = DelayStream(encode(service.components(), service.mean), 1, other) if inject else None
        self._optimizer = Optimizer(study.schedule, network.size)
        self._row, self.parameters = fleet.fresh()
        self.parameters[:] = network.start(seed)
        self._links = inject and service.mean > 0 and not self.server.rules.trains
        self._link: deque[tuple[float, Outcome]] = deque()
        self._link_free = 0.0
        self._trained_at = math.inf
        self._delivered: Deliveries[Outcome] = Deliveries()
        self._gone: set[int] = set()
        self._refused_in_row = 0
        self._trouble = ""
        self._began = 0.0
        self._elapsed = 0.0
        self._unfinished: list[tuple[int, float]] = []
        self._evaluation: _Evaluation | None = None
        self._apart: ThreadPoolExecutor

    @property
    def now(self) -> float:
        """Seconds since the run began, those before a checkpoint included."""
        return time.monotonic() - self._began

    def until_done(self, limit: float, progress: Progress | None, checkpoints: "Checkpoints | None") -> None:
        """Drive the protocol until the target holds, the limit, or a blow-up."""
        present = self.fleet.gather()
        with threads(self.fleet.spare_processors), ThreadPoolExecutor(1, thread_name_prefix="loss") as self._apart:
            self._until_done(present, limit, progress, checkpoints)

    def _until_done(
        self, present: set[int], limit: float, progress: Progress | None, checkpoints: "Checkpoints | None"
    ) -> None:
        self._gone = set(range(self.study.active_workers)) - present
        if not self.records.time:
            self.records.add(0.0, self.network.loss(self.parameters), 0)
        self._began = time.monotonic() - self._elapsed
        for worker, began in self._unfinished:
            self._write_unfinished(worker, began + self._began)
        taking_part = present if self._adapter is None else present & self._adapter.now.workers
        self._obey(self.server.begin(taking_part), first=True)
        if self._adapter is not None:
            self._set(self._adapter.now)
        due = self.now + 0.5 * self.cycle
        with held_signals() as stop_if_told:
            while not self.ended and self.now < limit:
                self.whole = True
                stop_if_told()
                if checkpoints is not None:
                    checkpoints.perhaps(self)
                self.whole = False
                self._next()
                if self._adapter is not None:
                    self._adapt(self._adapter, self.now)
                self.whole = True
                if self._evaluation is None and self.now >= due:
                    self._evaluate()
                elif self._evaluation is not None and self._evaluation.loss.done():
                    cost = self._record(limit, progress)
                    due = self.now + max(0.5 * self.cycle * self.records.thinned - cost, cost / EVALUATION_SHARE)
            self._record_last(limit, progress)

    def close(self) -> None:
        """Write rows of what no step used and of what never ended: nothing is applied any more."""
        for outcome in self._delivered.left():
            self._write(outcome, applied=None)
        for _, outcome in self._link:
            self._write_unfinished(outcome.worker, outcome.began)
        for worker, began in self.fleet.in_flight():
            self._write_unfinished(worker, began)

    def _next(self) -> None:
        """Wait for what happens next, 0.1 s at most, and act on it."""
        due = min(self._link[0][0] if self._link else math.inf, self._trained_at)
        event = self.fleet.collect(timeout=min(max(due - time.monotonic(), 0.0), WAITS))
        match event:
            case Outcome() as outcome:
                self._computed(outcome)
            case Lost(worker=worker, began=began):
                self._gone.add(worker)
                self._write_unfinished(worker, began)
                self._obey(self.server.lost(worker))
            case Joined(worker=worker) if worker in self._gone:
                self._gone.discard(worker)
                self._rejoin(worker)
        now = time.monotonic()
        while self._link and self._link[0][0] <= now:
            self._arrive(self._link.popleft()[1])
        if self._trained_at <= now:
            self._trained_at = math.inf
            self._obey(self.server.trained())

    def _computed(self, outcome: Outcome) -> None:
        """A gradient is there: it is refused, goes over the link, or has arrived."""
        if outcome.state not in (OK, QUIET):
            self._refuse(outcome)
            return
        self._refused_in_row = 0
        if self._adapter is not None:
            self._adapter.arrived(outcome.worker, outcome.arrived - outcome.began)
        if outcome.drawn is not None:
            self.records.overran(outcome.overrun)
            self.records.late += outcome.seconds > outcome.drawn
        if self._links and self._service and outcome.state == OK:
            now = time.monotonic()
            self._link_free = max(self._link_free, now) + self._service.next(0)
            self._link.append((self._link_free, outcome))
        else:
            self._arrive(outcome)

    def _arrive(self, outcome: Outcome) -> None:
        self._delivered.add(outcome.worker, outcome)
        self._obey(self.server.finished(outcome.worker, outcome.norm if self.server.rules.trigger > 0 else None))

    def _refuse(self, outcome: Outcome) -> None:
        """A gradient that is not finite, misshapen or another run's counts as lost; its worker goes on."""
        self.records.refused += 1
        self._refused_in_row += 1
        self._write_unfinished(outcome.worker, outcome.began)
        if self._refused_in_row >= MOST_REFUSED:
            self.ended = "refused"
        self._obey(self.server.lost(outcome.worker))
        self._rejoin(outcome.worker)

    def _rejoin(self, worker: int) -> None:
        """Have ``worker`` take part again, for one gradient if it was left out."""
        self._obey(self.server.joined(worker))
        if self._adapter is not None and worker not in self._adapter.now.workers:
            self._obey(self.server.leave(worker))

    def _adapt(self, adapter: Adapter, now: float) -> None:
        """Do what planning anew says."""
        for worker in adapter.probes(now):
            if worker not in self._gone and worker not in self.server.reading:
                self._obey([*self.server.stay(worker), *self.server.leave(worker)])
        change = adapter.look(now)
        if change is not None:
            self._warn(change.reason)
            self._set(change.setting)

    def _set(self, setting: Setting) -> None:
        """Have these workers take part, at this learning rate, under this bound."""
        self._optimizer.learning_rate = setting.learning_rate
        self.server.rules = replace(self.server.rules, max_staleness=setting.max_staleness)
        for worker in range(self.study.active_workers):
            if worker not in setting.workers:
                self._obey(self.server.leave(worker))
            elif worker not in self._gone:
                self._obey(self.server.stay(worker))

    def _cancel(self, worker: int) -> float:
        """Stop ``worker``'s gradient at work or on the link; says when it was begun."""
        for entry in self._link:
            if entry[1].worker == worker:
                self._link.remove(entry)
                self.fleet.stopped(worker)
                return entry[1].began
        return self.fleet.cancel(worker)

    def _obey(self, instructions: list[Instruction], *, first: bool = False) -> None:
        for instruction in instructions:
            match instruction:
                case Start(worker=worker):
                    self.fleet.dispatch(worker, self._row, self._delay(worker, first))
                case Again(worker=worker):
                    self.fleet.again(worker, self._delay(worker, first=False))
                case Cancel(worker=worker):
                    self._write_unfinished(worker, self._cancel(worker))
                case Drop(worker=worker) | Unsent(worker=worker):
                    self._write(self._delivered.last(worker), applied=None)
                case Expire(worker=worker):
                    self._write(self._delivered.oldest(worker), applied=None)
                case Hold(worker=worker) if not self.server.rules.idles:  # who idles leaves its memory alone
                    self._delivered.newest(worker).keep(parameters=self.study.schedule.delay_compensation > 0)
                case Train():
                    self._trained_at = time.monotonic() + (self._service.next(0) if self._service else 0.0)
                case Step() as step:
                    self._step(step)

    def _step(self, step: Step) -> None:
        taken = self._delivered.used(step)
        now = time.monotonic()
        gradients = []
        strength = self.study.schedule.delay_compensation
        for one, outcome in zip(step.gradients, taken, strict=True):
            assert outcome.gradient is not None
            self.records.applied(one.staleness, now - outcome.pulled)
            self.watch.applied(one.staleness, now - outcome.pulled)
            self._write(outcome, applied=step.version - 1, pulled=step.version - 1 - one.staleness)
            gradients.append(compensated(outcome.gradient, outcome.parameters, self.parameters, strength))
        mean = mean_gradient(gradients, [one.weight for one in step.gradients])
        row, room = self.fleet.fresh()
        self.parameters = self._optimizer.step(self.parameters, mean, out=room)
        self.fleet.release(self._row)
        self._row = row

    def _delay(self, worker: int, first: bool) -> float | None:
        if self._delays is None:
            return None
        if first and self.study.cluster.start == "staggered":
            return self._delays.residual(worker)
        return self._delays.next(worker)

    def _write(self, outcome: Outcome, applied: int | None, pulled: int | None = None) -> None:
        if self._writer is None:
            return
        self._writer.write(
            worker=str(outcome.worker),
            start=outcome.began - self._began,
            end=outcome.arrived - self._began,
            pulled_version="" if pulled is None else pulled,
            applied_version="" if applied is None else applied,
            compute=outcome.seconds,
            grad_norm=outcome.norm,
        )

    def _write_unfinished(self, worker: int, began: float) -> None:
        """A gradient that never ended: a row without an end, which `read_trace` takes for censored."""
        if self._writer is not None:
            self._writer.write(worker=str(worker), start=began - self._began)

    def _record_last(self, limit: float, progress: Progress | None) -> None:
        """Of a run that has ended, the loss where it ended, unless it diverged before."""
        if self._evaluation is not None:
            self._record(limit, progress)
        if self.ended != "diverged" and (not self.ended or self.records.updates[-1] < self.server.version):
            self._evaluate()
            self._record(limit, progress)

    def _evaluate(self) -> None:
        """Begin to compute the loss of the parameters as they are, beside everything else."""
        row, parameters = self._row, self.parameters
        self.fleet.hold(row)

        def timed() -> tuple[float, float]:
            began = time.monotonic()
            return self.network.loss(parameters), time.monotonic() - began

        self._evaluation = _Evaluation(self.now, self.server.version, row, self._apart.submit(timed))

    def _record(self, limit: float, progress: Progress | None) -> float:
        """Take down the loss that was begun, once it is there; the seconds it took."""
        assert self._evaluation is not None
        (now, version, row, told), self._evaluation = self._evaluation, None
        (loss, cost), records = told.result(), self.records
        self.fleet.release(row)
        records.add(now, loss, version)
        records.deaths = self.fleet.deaths
        if not self.ended:
            self.ended = self._why_stop(now, limit)
        for warning in self.watch.look(now):
            self._warn(warning)
        if self._trouble != self.fleet.hosts.trouble:
            self._trouble = self.fleet.hosts.trouble
            self._warn(f"the task raised {self._trouble} in a worker process; the gradients it had are lost")
        self._hand(
            version,
            {
                "loss": loss,
                "updates per second": version / now,
                "mean staleness": records.mean_staleness,
                "workers": float(self.fleet.present),
                "gradients lost": float(self.server.tally.lost),
                "gradients dropped": float(self.server.tally.dropped),
                "megabytes received": self.fleet.bytes / 1e6,
            },
        )
        if progress:
            progress(min(now / limit, 1.0), self._message(now))
        return cost

    def _hand(self, update: int, metrics: dict[str, float]) -> None:
        """Metrics are not worth a run: where they cannot be told, they are told no more."""
        try:
            self._sink(update, metrics)
        except Exception as error:  # whatever a tracking server, or a full disk, makes of them
            self._sink = lambda *_: None
            reason = " ".join(str(error).split())
            self._warn(f"no more metrics: they could not be handed over ({type(error).__name__}: {reason})")

    def _why_stop(self, now: float, limit: float) -> str:
        records, target = self.records, self.study.target.loss
        if not (math.isfinite(records.loss[-1]) and records.loss[-1] < highest_loss(records.loss[0], target)):
            return "diverged"
        settled = settling_time(records.time, records.loss, target)
        if settled is not None and now >= 1.3 * settled + 5 * self.cycle:
            return "reached"
        return "limit" if now >= limit else ""

    def _message(self, now: float) -> str:
        loss, workers, rate = self.records.loss[-1], self.study.active_workers, self.server.version / self.now
        return (
            f"loss {loss:.4g}, {rate:.1f} updates/s, staleness {self.records.mean_staleness:.2f}, "
            f"{self.fleet.present}/{workers} workers{self.watch.outlook(now, loss)}"
        )

    # Checkpoints

    def snapshot(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything that the rest of the run depends on but the gradients in flight, in copies."""
        tensors, optimizer = self._optimizer.state()
        arrays = {f"optimizer.{name}": tensor.numpy().copy() for name, tensor in tensors.items()}
        arrays["parameters"] = self.parameters.copy()
        streams = {}
        for name, stream in (("delays", self._delays), ("service", self._service)):
            if stream is not None:
                arrays[f"{name}.cursors"], streams[name] = stream.state()
        unfinished = [*self.fleet.in_flight(), *((one.worker, one.began) for _, one in self._link)]
        unfinished += [(one.worker, one.began) for one in self._delivered.left()]
        state = {
            "study": self.study.as_dict(),
            "seed": self.seed,
            "elapsed": self.now,
            "version": self.server.version,
            "tally": asdict(self.server.tally),
            "index": {str(worker): n for worker, n in self.fleet.index.items()},
            "optimizer": optimizer,
            "streams": streams,
            "records": self.records.as_dict(),
            "unfinished": [(worker, began - self._began) for worker, began in unfinished],
            "setting": None if self._adapter is None else self._adapter.state(),
            "trace": None if self._writer is None else list(self._writer.secure()),
        }
        return state, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Go on from a snapshot: what was in flight there is lost, its workers begin anew."""
        import torch  # noqa: PLC0415

        if arrays["parameters"].shape != self.parameters.shape:
            raise InputError(
                f"--resume: the checkpoint has {arrays['parameters'].size} parameters, the network {self.network.size}"
            )
        self.parameters[:] = arrays["parameters"]
        prefix = "optimizer."
        tensors = {n.removeprefix(prefix): torch.from_numpy(a) for n, a in arrays.items() if n.startswith(prefix)}
        self._optimizer.restore(tensors, state["optimizer"])
        for name, stream in (("delays", self._delays), ("service", self._service)):
            if stream is not None and name in state["streams"]:
                stream.restore(arrays[f"{name}.cursors"], state["streams"][name])
        self.server.resume(state["version"], Tally(**state["tally"]))
        self.records = Records.from_dict(state["records"])
        self._elapsed = state["elapsed"]
        if self._adapter is not None and state["setting"] is not None:
            self._adapter.restore(state["setting"])
        if self._adapter is None and state["setting"] is not None:
            self._optimizer.learning_rate = self.study.learning_rate
        self._unfinished = [(int(worker), began) for worker, began in state["unfinished"]]


KEPT = {  # what `Run.snapshot` tells
    "study", "seed", "elapsed", "version", "tally", "index", "optimizer", "streams", "records", "unfinished", "setting",
    "trace",
}  # fmt: skip


class Checkpoints:
    """Writes checkpoints while a run goes on, in a thread of its own.

    Args:
        folder: Where they go.
        every: Seconds between two; longer if writing one takes more than a tenth of that.
        warn: Is told what went wrong; the run goes on.
    """

    def __init__(self, folder: Path, every: float, warn: Callable[[str], None]) -> None:
        self._folder, self._every, self._warn = folder, every, warn
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[float] | None = None
        self._due = time.monotonic() + every
        self.failed = 0

    def perhaps(self, run: Run) -> None:
        """Begin one if it is time and none is being written."""
        now = time.monotonic()
        if now < self._due or (self._writing is not None and not self._writing.done()):
            return
        cost = self._finish()
        self._due = now + max(self._every, 10.0 * cost)
        self._begin(run)

    def last(self, run: Run) -> None:
        """Write one now, and wait for it."""
        self._finish()
        self._begin(run)
        self._finish()

    def _begin(self, run: Run) -> None:
        try:
            snapshot = run.snapshot()
        except OSError as error:  # of the trace: it must be on disk as far as the checkpoint tells
            self._fail(error)
        else:
            self._writing = self._pool.submit(self._write, snapshot)

    def _fail(self, error: OSError) -> None:
        self.failed += 1
        self._warn(f"a checkpoint could not be written ({error.strerror}); the one before stands, the run goes on")

    def _write(self, snapshot: tuple[dict[str, Any], dict[str, np.ndarray]]) -> float:
        began = time.monotonic()
        save_checkpoint(self._folder, *snapshot)
        return time.monotonic() - began

    def _finish(self) -> float:
        """Wait for the one being written; the seconds it took."""
        writing, self._writing = self._writing, None
        if writing is None:
            return 0.0
        try:
            return writing.result()
        except OSError as error:
            self._fail(error)
            return 0.0

    def close(self) -> None:
        """Wait for the thread."""
        with contextlib.suppress(NotConvergedError):
            self._finish()
        self._pool.shutdown()
