"""`train`: a study in real time. Ray workers compute, the driver is the server, the protocol decides."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stalewise import checks
from stalewise.errors import InputError
from stalewise.hands.cluster import joined_ray, local_ray
from stalewise.study import Study
from stalewise.traces import Secured, TraceWriter
from stalewise.training.adapt import Adapter
from stalewise.training.checkpoint import load_checkpoint
from stalewise.training.fleet import Fleet
from stalewise.training.run import KEPT, MOST_REFUSED, Checkpoints, Progress, Run
from stalewise.training.sinks import open_sinks
from stalewise.training.watch import Expectation, Watch
from stalewise.trajectory import Gradients, TargetTime, Trajectory, settling_time
from stalewise.workloads import open_network

MOST_CYCLES = 2000
CHECKPOINT_EVERY = 60.0
MOST_SEED = 1 << 63
DIVERGED = ("diverged", "refused")
TRACE, MODEL = "trace.csv", "model.safetensors"


def train(
    study: Study,
    *,
    seed: int = 0,
    compute: Literal["inject", "real"] = "inject",
    folder: str | Path | None = None,
    trace_path: str | Path | None = None,
    resume: bool = False,
    checkpoint_every: float = CHECKPOINT_EVERY,
    address: str | None = None,
    expected: Trajectory | None = None,
    adapt: bool = False,
    log: Sequence[str] = (),
    patience: float | None = None,
    time_limit: float | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> Trajectory:
    """Train for real, on a local Ray or on a cluster.

    Args:
        study: A network study; its schedule needs a policy and a learning rate.
        seed: Of the first parameters, the batches and the injected delays: the same as in virtual time.
        compute: "inject": workers compute, and their gradients count as there after a delay drawn from ``cluster``, so
            that one laptop plays a whole cluster. "real": gradients take as long as they take, one process a worker.
        folder: Where checkpoints, the trace and the trained model (``model.safetensors``, a ``state_dict``) go.
        trace_path: Where to write one row a gradient, ``folder/trace.csv`` unless given: under this name with
            ``.partial`` while it runs.
        resume: Go on from the folder's last checkpoint.
        checkpoint_every: Seconds between two checkpoints.
        address: Of a Ray cluster to join; a local Ray unless given.
        expected: What `predict` said: progress then tells the predicted end and the gap to the predicted loss.
        adapt: Fit delays and plan anew while it runs: who takes part, learning rate, bound (policy async).
        log: "tensorboard", "mlflow".
        patience: A worker that does not answer for so long is killed [s]; 60 s, or 20 times the median gradient,
            unless given.
        time_limit: Stop here at the latest [s]; default ``target.time_limit``, else 2000 mean cycles.
        progress: Called with the fraction done and a message.
        warn: Called with what the user should know while it runs; it stands in the notes as well.

    Returns:
        Trajectory with engine "train". The run ends when the loss has stayed below the target for 30 % longer than it
        took (and 5 mean cycles), at the time limit, or when it blows up.

    Raises:
        InputError: The study is a quadratic; a file cannot be written; there is nothing to go on from.
        NotConvergedError: Worker processes cannot run.
    """
    _check(study, seed, compute, time_limit=time_limit, patience=patience, checkpoint_every=checkpoint_every)
    place = None if folder is None else Path(folder)
    if trace_path is None and place is not None:
        trace_path = place / TRACE
    if trace_path is not None and Path(trace_path).resolve() in {p.resolve() for p in study.cluster.sources.values()}:
        raise InputError(f"trace_path: the study reads {str(trace_path)!r}, which the run would replace")
    network, study = open_network(study)
    _check_optimizer(study)
    warnings: list[str] = []

    def tell(message: str) -> None:
        warnings.append(message)
        if warn is not None:
            warn(message)

    state, arrays = _last(place, study, seed, tell) if resume else (None, {})
    with ExitStack() as stack:
        adapter = Adapter(study) if adapt else None
        if adapter is not None:
            stack.callback(adapter.close)
        if place is not None:
            _make(place)
        keep = None if state is None or state["trace"] is None else Secured(*state["trace"])
        writer = stack.enter_context(TraceWriter(trace_path, keep)) if trace_path else None
        sink = stack.enter_context(open_sinks(log, place))
        ray = stack.enter_context(local_ray() if address is None else joined_ray(address, study))
        if progress:
            progress(0.0, "starting workers")
        index = None if state is None else {int(worker): n for worker, n in state["index"].items()}
        fleet = Fleet(
            ray, study, network.size, seed, real=compute == "real", joined=address is not None, patience=patience,
            index=index,
        )  # fmt: skip
        stack.callback(fleet.close)
        watch = Watch(study, _expectation(study, expected))
        run = Run(
            study, network, fleet, seed, inject=compute == "inject", writer=writer, watch=watch, sink=sink, warn=tell,
            adapter=adapter,
        )  # fmt: skip
        if state is not None:
            try:
                run.restore(state, arrays)
            except InputError:
                raise
            except (KeyError, TypeError, ValueError, IndexError) as error:  # a right checksum over something else
                raise InputError(f"--resume: the checkpoint is not one of a run ({error!r})") from None
        limit = time_limit or study.target.time_limit or MOST_CYCLES * run.cycle
        if place is None:
            run.until_done(limit, progress, None)
            run.close()
        else:
            _run_in(run, Checkpoints(place, checkpoint_every, tell), limit, progress)
            _save_model(run, place, tell)
        return trajectory_of(run, warnings)


def _check(study: Study, seed: int, compute: str, **seconds: float | None) -> None:
    """Refuse what cannot be run."""
    if study.workload.is_quadratic:
        raise InputError('workload.kind must be a network for train, got "quadratic"; use simulate for quadratics')
    checks.one_of("compute", compute, ("inject", "real"))
    for name, value in seconds.items():
        if value is not None:
            checks.positive(name, value, "seconds")
    if checks.at_least("seed", seed, 0) >= MOST_SEED:
        raise InputError(f"seed must be below {MOST_SEED}, got {seed}")
    study.server()
    assert study.learning_rate > 0
    _check_plain(study)


def _check_plain(study: Study) -> None:
    """Refuse options that neither a checkpoint nor an answer can hold."""
    for name, options in (
        ("workload.options", study.workload.options), ("schedule.optimizer_options", study.schedule.optimizer_options),
    ):  # fmt: skip
        try:
            json.dumps(options, allow_nan=False)
        except (TypeError, ValueError):
            raise InputError(
                f"{name} must be finite numbers, texts, truth values, and lists and tables of them, got {options}"
            ) from None


def _check_optimizer(study: Study) -> None:
    """Refuse its options before anything is started."""
    from stalewise.workloads.optimizer import Optimizer  # noqa: PLC0415  (PyTorch is an extra)

    Optimizer(study.schedule, 1)


def _run_in(run: Run, checkpoints: Checkpoints, limit: float, progress: Progress | None) -> None:
    """Run, with checkpoints, one of them at the end however it comes, unless that is in the midst of a step."""
    try:
        run.until_done(limit, progress, checkpoints)
    finally:
        if run.whole and run.ended not in DIVERGED:
            checkpoints.last(run)
        checkpoints.close()
    run.close()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: cannot use {str(folder)!r} as a folder: {error.strerror}") from None


def _last(
    folder: Path | None, study: Study, seed: int, warn: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The folder's last checkpoint, if it is this study's."""
    if folder is None:
        raise InputError("--resume needs the folder of the run: give --out")
    state, arrays, warning = load_checkpoint(folder)
    if warning:
        warn(warning)
    if missing := sorted(KEPT - state.keys()):
        raise InputError(f"--resume: the checkpoint lacks {', '.join(missing)}: it is not one of a run")
    if state["seed"] != seed:
        raise InputError(f"--resume: the checkpoint has seed {state['seed']}, got --seed {seed}")
    ours, theirs = study.as_dict(), state["study"]
    for section in ("workload", "cluster", "schedule"):
        if ours.get(section) != theirs.get(section):
            names = sorted({*ours.get(section, {}), *theirs.get(section, {})})
            name = next(n for n in names if ours.get(section, {}).get(n) != theirs.get(section, {}).get(n))
            old, new = theirs.get(section, {}).get(name), ours.get(section, {}).get(name)
            raise InputError(f"--resume: {section}.{name} was {old!r} and is {new!r}: this is not the same study")
    return state, arrays


def _expectation(study: Study, expected: Trajectory | None) -> Expectation:
    """What was predicted; else that delays follow the study's law, as they do under plain async."""
    if expected is not None:
        return Expectation.of(expected)
    plain = study.policy == "async" and study.schedule.max_staleness is None and study.workers().law is not None
    return Expectation(delay=study.workers().mean_cycle if plain and study.cluster.service_law().mean == 0 else None)


def _save_model(run: Run, folder: Path, warn: Callable[[str], None]) -> None:
    from safetensors import SafetensorError  # noqa: PLC0415  (an extra)
    from safetensors.torch import save_file  # noqa: PLC0415

    partial = folder / f".{MODEL}.partial"
    try:
        save_file(run.network.export(run.parameters), partial)
        partial.replace(folder / MODEL)
    except (SafetensorError, OSError) as error:  # the checkpoint has the parameters
        partial.unlink(missing_ok=True)
        warn(f"{MODEL} could not be written: {' '.join(str(error).split())}")


def trajectory_of(run: Run, warnings: Sequence[str] = ()) -> Trajectory:
    """What happened."""
    study, records, target = run.study, run.records, run.study.target.loss
    diverged = run.ended in DIVERGED
    keep = slice(None, -1) if run.ended == "diverged" and len(records.time) > 1 else slice(None)
    times, loss = records.time[keep], records.loss[keep]
    settled = None if diverged else settling_time(times, loss, target)
    end = records.time[-1]
    return Trajectory(
        engine="train",
        study=study.as_dict(),
        seed=run.seed,
        time=times,
        updates=[float(k) for k in records.updates[keep]],
        loss=loss,
        update_rate=records.updates[-1] / end if end > 0 else None,
        staleness=records.staleness_summary(),
        delay=records.delay_summary(),
        gradients=Gradients.from_tally(run.server.tally),
        mean_square_stable=False if diverged else None,
        time_to_target=TargetTime(mean=settled),
        status=_status(run, settled),
        notes=[*_notes(run), *warnings],
    )


def _status(run: Run, settled: float | None) -> str:
    target, end = run.study.target.loss, run.records.time[-1]
    if run.ended == "refused":
        return f"diverges: {MOST_REFUSED} gradients in a row were not finite, misshapen or another run's by {end:.4g} s"
    if run.ended == "diverged" and not math.isfinite(run.records.loss[0]):
        return "diverges: the training loss is not finite from the start"
    if run.ended == "diverged":
        return f"diverges: the training loss grew without bound by {end:.4g} s"
    if settled is not None:
        return f"reaches loss {target:g} after {settled:.4g} s and stays below"
    last = run.records.loss[-1]
    return f"has not settled below {target:g} by the time limit, {end:.4g} s; the loss is {last:.4g} there"


def _notes(run: Run) -> list[str]:
    records, lost = run.records, run.server.tally.lost
    score = run.network.score(run.parameters)
    notes = [] if score is None else [f"held out: {run.network.score_name} {score:.4g}"]
    if records.overruns:
        median = 1e3 * float(np.median(records.overruns))
        notes.append(f"delays injected; the median gradient came {median:.1f} ms later than drawn")
    if records.late:
        notes.append(f"{records.late} gradients took longer to compute than the delay drawn for them")
    if lost:
        notes.append(
            f"{lost} gradients were lost, {records.refused} of them refused as not finite, misshapen or another run's; "
            f"worker processes died {records.deaths} times"
        )
    return notes
