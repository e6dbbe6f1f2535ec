"""The verbs. Each parses, calls one function of the library, and prints."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts

from stalewise import checks
from stalewise.cli.shared import (
    Json,
    Out,
    Seed,
    Set,
    check_folder,
    progress_bar,
    read_expectation,
    read_study,
    read_trajectory,
    say,
    stopped_by_signals,
    study_toml,
    trace_file,
    warn,
    write_answer,
)
from stalewise.study import Study
from stalewise.trajectory import Trajectory, to_json

if TYPE_CHECKING:
    from stalewise.landscape import Place

Logs = Annotated[list[Literal["tensorboard", "mlflow"]] | None, cyclopts.Parameter(name="--log", negative="")]
Kinds = Annotated[list[Literal["workers", "spread", "threshold"]] | None, cyclopts.Parameter(name="--kind")]

Vary = Annotated[list[str], cyclopts.Parameter(name="--vary", negative="")]

Updates = Annotated[list[int] | None, cyclopts.Parameter(name="--updates", negative="")]


def fit(
    trace: str, /, *, unit: str | None = None, columns: str | None = None, format: str | None = None,
    json: Json = False, seed: Seed = 0, out: Out = None,
) -> None:  # fmt: skip
    """Fit delay laws to a log of delays.

    Ranks laws by held-out likelihood and AIC, tests the best, and says which simplifications are safe and what each
    costs in staleness. Times are seconds.

    Example: stalewise fit examples/pai_job_1.csv

    Args:
        trace: CSV, JSON Lines or Parquet of worker,start,end; Alibaba PAI or ByteDance traces; - is standard input.
        unit: Unit of the file's times: s, ms, us, ns or min.
        columns: Columns that go by another name in the file, ours to the file's: start=begin_ts,end=done_ts.
        format: csv, jsonl, parquet, gradients, pai, bytedance or steps; seen from the file's content unless given.
    """
    from stalewise.delays import fit_delay
    from stalewise.staleness import simplification_costs
    from stalewise.traces import parse_columns, read_trace

    names = None if columns is None else parse_columns(columns)
    with trace_file(trace) as path:
        measured = read_trace(path, unit=unit, columns=names, format=format)
    found = fit_delay(measured, seed=seed)
    answer = found.with_costs(simplification_costs(measured, found, seed=seed)).as_dict()
    write_answer(out, {"fit.json": to_json(answer)})
    laws = [
        f"  {c['law']:<66} {_or(c['held_out'], '.1f'):>12} {c['aic']:>12.1f}" for c in answer["pooled"]["candidates"]
    ]
    models = [
        f"  {c['model']:<12} {c['mean']:>8.2f} {c['variance']:>10.4g} {c['p99']:>6} {_percent(c['variance_error']):>10}"
        for c in answer["costs"]
    ]
    table = ["", "Staleness under async:  mean   variance    p99   variance against replay", *models]
    say(json, answer, [
        *answer["sentences"], "", f"{'Laws, best first:':<68} {'held out':>12} {'AIC':>12}", *laws,
        *(table if models else []), *_notes(answer["notes"]),
    ])  # fmt: skip


def measure(
    study: str, /, *, budget: str | None = None, eigenvalues: int = 10, updates: Updates = None,
    set_: Set = None, json: Json = False, seed: Seed = 0, out: Out = None,
) -> None:  # fmt: skip
    """Measure a network's landscape: curvature, gradient noise, time of one gradient, with error bars.

    Leading eigenvalues of the Hessian and of the Gauss-Newton matrix, the Hessian's spectral density, the noise of
    gradients in total and along the leading eigenvectors, the batch at which noise equals signal, and how long a
    gradient takes here. All of it is true of one place: curvature moves in training. With --out it is written as
    measure.json and, as pictures, measure.html. A study with landscape = "measure.json" under [workload] takes its
    curvature from there (docs/landscapes.md).

    Example: stalewise measure examples/digits.toml --budget 20s --updates 500 --out runs/digits

    Args:
        study: Study file (TOML) with a network workload; - reads standard input.
        budget: What each place may cost: gradients (20000 unless given), or a time (60s, 2min) that is turned into
            gradients. More buys samples behind the curvatures, and so smaller errors.
        eigenvalues: Leading ones to find.
        updates: Measure again after so many updates of plain SGD with the study's learning rate and batch (repeatable).
    """
    from stalewise.errors import InputError
    from stalewise.landscape import DEFAULT_BUDGET
    from stalewise.landscape import measure as run
    from stalewise.report.figures import landscape_page

    question = read_study(study, set_)
    if question.workload.is_quadratic:
        raise InputError(
            'workload.kind must be a network for measure, got "quadratic": its landscape stands in the study'
        )
    with progress_bar("measure") as progress:
        answer = run(
            question.workload, batch_size=question.schedule.batch_size, budget=budget or DEFAULT_BUDGET,
            eigenvalues=eigenvalues, updates=updates or (), learning_rate=question.schedule.learning_rate, seed=seed,
            progress=progress,
        )  # fmt: skip
    document = answer.model_dump()
    write_answer(out, {"measure.json": answer.to_json(), "measure.html": landscape_page(document)} if out else {})
    lines = [line for place in answer.places for line in (*_place(place), "")]
    say(json, document, [
        *lines, f"spent {answer.gradients:.0f} gradients of {answer.batch_size} samples, {answer.seconds:.3g} s",
        f"pictures {out / 'measure.html'}" if out else "pictures and a file for studies: with --out FOLDER",
        *_notes(answer.notes),
    ])  # fmt: skip


def _place(place: "Place") -> list[str]:
    """What was measured at one place, in lines."""
    after = f"after {place.updates} updates of SGD" if place.updates else "at the start"
    noise, batch = place.noise, place.batches
    along = ", ".join(f"{one.value:.3g}" for one in noise.covariance.along)
    times = "; ".join(
        f"{one.batch_size}: {1e3 * one.seconds.median:.3g} +- {1e3 * one.seconds.standard_error:.1g}" for one in batch
    )
    gauss = place.gauss_newton
    return [
        f"{after}: loss {place.loss:.4g}; curvatures over {place.samples} samples",
        f"  Hessian        {', '.join(f'{one.value:.4g}' for one in place.hessian)}",
        f"                 largest {place.hessian[0]} (residual {place.hessian[0].residual:.1g}); trace "
        f"{place.density.trace}; lowest seen {place.density.eigenvalues[0]:.3g}",
        f"  Gauss-Newton   {', '.join(f'{one.value:.4g}' for one in gauss) if gauss else '-'}",
        f"  gradient noise variance of one sample {noise.total}; along the eigenvectors {along}",
        f"  noise scale    {noise.scale or '-'} samples; two-batch estimator {noise.scale_two_batch or '-'}",
        f"  one gradient   by batch size [ms]: {times}",
    ]


def limit(study: str, /, *, set_: Set = None, json: Json = False, seed: Seed = 0, out: Out = None) -> bool:
    """Say how far learning rate and workers can be pushed.

    The mean-square limit is the one to trust: past it single runs blow up. Exits with 3 if the study is past it.

    Example: stalewise limit examples/quadratic.toml

    Args:
        study: Study file (TOML); - reads standard input.
    """
    from stalewise.prediction import limit as find

    answer = find(read_study(study, set_), seed=seed)
    write_answer(out, {"limit.json": to_json(answer.as_dict())})
    rate, workers = answer.learning_rate, answer.active_workers
    say(json, answer.as_dict(), [
        f"learning rate   below {rate['mean_square']:.4g} (mean square); the mean alone would allow {rate['mean']:.4g}",
        f"active workers  at most {_or(workers['mean_square'])} (mean square); the mean alone {_or(workers['mean'])}",
        f"method          {answer.method}",
        *_notes(answer.notes),
    ])  # fmt: skip
    return bool(answer.diverges)


def chart(
    study: str, /, *, kind: Kinds = None, set_: Set = None, json: Json = False, seed: Seed = 0, out: Out = None
) -> bool:
    """Draw up stability charts: where training is stable, and how fast it converges there.

    Kinds: workers (active workers x learning rate), spread (coefficient of variation of the delay x gain), threshold
    (active workers x largest staleness); the first two unless given. With --out they are written as charts.json and,
    as pictures, charts.html.

    Example: stalewise chart examples/quadratic.toml --kind workers --kind spread --out runs/charts

    Args:
        study: Study file (TOML); - reads standard input.
        kind: Which chart (repeatable).
    """
    from stalewise.prediction import chart as draw
    from stalewise.report.figures import chart_page

    question, kinds = read_study(study, set_), kind or ["workers", "spread"]
    charts = []
    with progress_bar("chart") as progress:
        for one in kinds:
            charts.append(draw(question, one, seed=seed, progress=progress).as_dict())
    write_answer(out, {"charts.json": to_json(charts), "charts.html": chart_page(charts)} if out else {})
    lines = [f"{one['kind']:<10} {_boundaries(one)}" for one in charts]
    say(json, charts, [*lines, f"pictures   {out / 'charts.html'}" if out else "pictures   with --out FOLDER"])
    return False


def _boundaries(chart: dict) -> str:
    """The range of each boundary."""
    told = []
    for name, values in chart["boundaries"].items():
        known = [value for value in values if value is not None]
        told.append(f"{name} {min(known):.4g} to {max(known):.4g}" if known else f"{name}: none")
    return f"{chart['y']['name']}: " + "; ".join(told)


def predict(
    study: str, /, *, budget: float | None = None, starts: int = 1, set_: Set = None, json: Json = False,
    seed: Seed = 0, out: Out = None,
) -> bool:  # fmt: skip
    """Predict loss against time, staleness and time to target, by mathematics.

    Networks take their curve from two cheap pilots in virtual time: the same schedule with smaller batches, drawn back
    to the noise of its own; their cost is told. Exits with 3 if it diverges.

    Example: stalewise predict examples/quadratic.toml --set schedule.active_workers=8

    Args:
        study: Study file (TOML); - reads standard input.
        budget: Samples that a network's pilots may cost, as a share of the run they predict, seed for seed: unless
            given a fifth, and more where noise would decide; 1 runs it.
        starts: First parameters of a network that its 8 seeds take in turn; with 1 the band says nothing of others.
    """
    from stalewise.prediction import predict as run
    from stalewise.prediction import stability_chart

    question = read_study(study, set_)
    with progress_bar("predict") as progress:
        answer = run(question, seed=seed, budget=budget, starts=starts, progress=progress)
        files = {"predict.json": answer.to_json()}
        if out is not None:
            files["chart.json"] = to_json(stability_chart(question, seed=seed))
            files["study.toml"] = study_toml(question, out)
    write_answer(out, files)
    return _tell(answer, json)


def simulate(
    study: str, /, *, seeds: int | None = None, horizon: float | None = None, starts: int = 1, set_: Set = None,
    json: Json = False, seed: Seed = 0, out: Out = None,
) -> bool:  # fmt: skip
    """Run a study in virtual time: the same server as a real run, no cluster needed.

    Exits with 3 if it diverges.

    Example: stalewise simulate examples/quadratic.toml --seeds 200

    Args:
        study: Study file (TOML); - reads standard input.
        seeds: Repetitions: 64 for a quadratic, 16 for a network unless given.
        horizon: Virtual seconds to run; until settled unless given.
        starts: First parameters of a network that repetitions take in turn; with 1 intervals say nothing of others.
    """
    from stalewise import checks
    from stalewise.prediction import advise
    from stalewise.simulation import simulate as run

    if seeds is not None:
        checks.at_least("seeds", seeds, 1)
    question = read_study(study, set_)
    with progress_bar("simulate") as progress:
        answer = run(question, seeds=seeds, seed=seed, horizon=horizon, starts=starts, progress=progress)
        answer = answer.with_note(advise(question, answer, seed=seed))
    write_answer(out, {"simulate.json": answer.to_json()})
    return _tell(answer, json)


def train(
    study: str, /, *, compute: Literal["inject", "real"] = "inject", time_limit: float | None = None,
    resume: Annotated[bool, cyclopts.Parameter(negative="")] = False, checkpoint_every: float = 60.0,
    address: str | None = None, adapt: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    expect: str | None = None, log: Logs = None, patience: float | None = None,
    set_: Set = None, json: Json = False, seed: Seed = 0, out: Out = None,
) -> bool:  # fmt: skip
    """Train for real: on a local Ray, or on a cluster.

    Exits with 3 if it diverges. With --out the folder gets trace.csv, one row a gradient, which `fit` reads (also while
    it grows, as trace.csv.partial), checkpoints, and the trained model's state_dict, model.safetensors. A run that was
    stopped or killed goes on with --resume.

    Example: stalewise train examples/digits.toml --set schedule.learning_rate=0.03 --out runs/mine

    Args:
        study: Study file (TOML); - reads standard input.
        compute: inject: gradients count as there after delays drawn from the study's cluster; real: as fast as they
            come, one process a worker.
        time_limit: Stop after this many seconds at the latest.
        resume: Go on from the last checkpoint in --out.
        checkpoint_every: Seconds between two checkpoints.
        address: Ray cluster to join, host:port of its head or auto; a Ray of its own, on loopback, unless given.
        adapt: Fit delays from the run's own gradients and plan anew while it goes on: who takes part, learning rate,
            bound on the staleness; each change is told.
        expect: Answer of predict or plan to compare the run with while it goes on; predict.json or plan.json in --out,
            if it is of the same schedule, unless given.
        log: Hand metrics to tensorboard or mlflow, if installed (repeatable).
        patience: Seconds after which a worker that does not answer is killed; 60, or 20 times the median gradient,
            unless given.
    """
    from stalewise.prediction import advise
    from stalewise.training import train as run

    check_folder(out)
    question = read_study(study, set_)
    expected = _expected(question, expect, out)
    with progress_bar("train") as progress, stopped_by_signals(out):
        answer = run(
            question, seed=seed, compute=compute, time_limit=time_limit, folder=out, resume=resume, address=address,
            adapt=adapt, checkpoint_every=checkpoint_every, expected=expected, log=log or (), patience=patience,
            progress=progress, warn=warn,
        )  # fmt: skip
        answer = answer.with_note(advise(question, answer, seed=seed))
    write_answer(out, {"train.json": answer.to_json()})
    return _tell(answer, json)


def _expected(question: Study, expect: str | None, out: Path | None) -> Trajectory | None:
    """What a run is compared with: the file named, or what lies in its folder and is of the same schedule."""
    if expect is not None:
        return read_expectation(Path(expect))
    for name in ("predict.json", "plan.json"):
        if out is not None and (out / name).exists():
            found = read_expectation(out / name)
            if found.study.get("schedule") == question.as_dict().get("schedule"):
                return found
    return None


def plan(
    study: str, /, *, objective: str = "time", price: float = 1.0, most_time: float | None = None,
    most_cost: float | None = None, most_traffic: float | None = None, margin: float | None = None,
    unsure: dict[str, float] | None = None, gradients: float | None = None, address: str | None = None,
    cores: int | None = None, set_: Set = None, json: Json = False, seed: Seed = 0, out: Out = None,
) -> bool:  # fmt: skip
    """Choose a schedule for the study's target, and say why.

    What [schedule] gives is held, the rest is searched: policy, workers, group, max_staleness, learning rate and
    momentum, beside published rules. Quadratics are planned for by mathematics, with batch sizes where
    cluster.sample_time says what samples cost, and triggers where traffic is to be least or limited; of networks theory
    names the structures, cheap pilots in virtual time race, and full runs decide among the last (docs/planning.md). The
    pick is checked in virtual time. With --out pilots are kept, and not run again when the search is begun anew.

    Example: stalewise plan examples/quadratic.toml --objective cost --most-time 60
    Example: stalewise plan examples/digits.toml --gradients 20000 --out runs/digits

    Args:
        study: Study file (TOML); - reads standard input.
        objective: What is to be least: time [s], cost (worker-seconds times price) or traffic [bytes].
        price: Of a worker-second.
        most_time: Limit on the time to the target [s].
        most_cost: Limit on the cost.
        most_traffic: Limit on what is sent, parameters and gradients [bytes].
        margin: Largest share of the mean-square limit that a learning rate may take, of quadratics; 0.9 unless given.
        unsure: Factor by which curvature, noise or spread (of the delays) may be off, such as --unsure.noise 2; the
            plan tells its regret over them. 1.2, 1.5 and 1.3 unless given; two standard errors for the spread of a log.
            A network's plan assumes no curvature.
        gradients: Budget of a network's search, in gradients of the study's batch size, without triggers and the check
            of the pick; as many as it takes unless given.
        address: Ray cluster that runs a network's pilots, host:port of its head or auto.
        cores: Of this machine that run them, without an address; all of them unless given, 1 for no Ray.
    """
    from stalewise.errors import InputError
    from stalewise.hands import borrowed
    from stalewise.planning import Goal
    from stalewise.planning import plan as run
    from stalewise.planning.search import MARGIN

    limits = {"time": most_time, "cost": most_cost, "traffic": most_traffic}
    goal = Goal(objective, price, **{name: value for name, value in limits.items() if value is not None})
    question = read_study(study, set_)
    check_folder(out)
    if cores is not None:
        checks.at_least("--cores", cores, 1)
    for name, value in (("--gradients", gradients), ("--address", address), ("--cores", cores)):
        if value is not None and question.workload.is_quadratic:
            raise InputError(f"{name} is for networks, got {value}: a quadratic is planned by mathematics, on one core")
    if margin is not None and not question.workload.is_quadratic:
        raise InputError(f"--margin is for quadratics, got {margin:g}: a network's limit moves, so its rates are raced")
    share = MARGIN if margin is None else margin
    folder = None if out is None else out / "pilots"
    lent = (
        nullcontext()
        if question.workload.is_quadratic
        else borrowed(question, address=address, cores=cores, folder=folder)
    )
    with progress_bar("plan") as progress, lent as hands:
        answer = run(
            question, goal=goal, margin=share, seed=seed, gradients=gradients, hands=hands, unsure=unsure,
            progress=progress,
        )  # fmt: skip
    files = {"plan.json": to_json(answer.as_dict())}
    if out is not None:
        files["planned.toml"] = study_toml(answer.study, out)
    write_answer(out, files)
    schedule = answer.study.schedule.model_dump(exclude_none=True, exclude_defaults=True)
    chosen = [f"  {key} = {value!r}" for key, value in schedule.items()]
    others = [f"  {_seconds(a)}  {_brief(a['schedule'])}  ({a['note']})" for a in answer.alternatives]
    rules = [f"  {_seconds(a)}  {a['rule']}  ({a['note']})" for a in answer.baselines]
    say(json, answer.as_dict(), [
        "Schedule:", *chosen, "", "Why:", *(f"  {r}" for r in answer.reasons), "", "Alternatives:", *others[:8],
        *(["", "Published rules:", *rules] if rules else []),
    ])  # fmt: skip
    return answer.checked.diverges


def sweep(
    study: str, /, *, vary: Vary, engine: Literal["simulate", "predict"] = "simulate", seeds: int | None = None,
    address: str | None = None, cores: int | None = None,
    set_: Set = None, json: Json = False, seed: Seed = 0, out: Out = None,
) -> None:  # fmt: skip
    """Answer a study under every combination of some fields' values: a table, and a picture in the report.

    All cores share the work. With --out every answer is kept as soon as it is there: a sweep that was stopped, or that
    is widened, computes what is missing. A limit, --set target.time_limit=60, ends what does not get there.

    Example: stalewise sweep examples/quadratic.toml --set 'schedule.policy="async"' --vary
    'schedule.learning_rate=geom(0.01, 0.3, 6)' --vary 'cluster.workers=[4, 8, 16]' --out runs/sweep

    Args:
        study: Study file (TOML); - reads standard input.
        vary: A field and its values, section.field=[values] or section.field=geom(first, last, how many) (repeatable).
        engine: What answers: simulate, in virtual time with the same random numbers for all, or predict.
        seeds: Repetitions of each, of simulate; 64 of a quadratic and 16 of a network unless given.
        address: Ray cluster that does the work, host:port of its head or auto.
        cores: Of this machine that do it, without an address; all of them unless given, 1 for no Ray.
    """
    from stalewise.hands import borrowed
    from stalewise.planning import parse_axes
    from stalewise.planning import sweep as run

    question = read_study(study, set_)
    check_folder(out)
    axes = parse_axes(vary)
    if cores is not None:
        checks.at_least("--cores", cores, 1)
    lent = borrowed(question, address=address, cores=cores, folder=None if out is None else out / "answers")
    with progress_bar("sweep") as progress, lent as hands:
        answer = run(question, axes, engine=engine, seeds=seeds, seed=seed, hands=hands, progress=progress)
    write_answer(out, {"sweep.json": to_json(answer.as_dict()), "sweep.csv": answer.to_csv()})
    best = answer.best
    found = "None gets there." if best is None else f"First at the target: {_seconds(best)}  {_values(best)}"
    target = "the target" if "target.loss" in axes else f"loss {question.target.loss:g}"
    say(json, answer.as_dict(), [
        f"Time to {target}, by {engine}:",
        *(f"  {_seconds(row)}  {_values(row)}  ({row['status']})" for row in answer.rows), "", found,
        *([] if out is None else [f"table {out / 'sweep.csv'}; for the picture: stalewise report {out}"]),
    ])  # fmt: skip


def _values(row: dict[str, Any]) -> str:
    return ", ".join(f"{name.partition('.')[2]} {value}" for name, value in row["values"].items())


def compare(first: str, second: str, /, *more: str, json: Json = False) -> None:
    """Set trajectories (JSON files of predict, simulate, train) side by side.

    Example: stalewise compare runs/demo/predict.json runs/demo/simulate.json runs/demo/train.json

    Args:
        first: A trajectory; ratios are to this one. One of them may be -, standard input.
        second: Another.
        more: Any further ones.
    """
    from stalewise.prediction import compare as run

    answer = run([read_trajectory(path) for path in (first, second, *more)])
    say(json, answer.as_dict(), answer.lines())


def report(folder: Path, /, *, json: Json = False) -> None:
    """Write one self-contained page from what --out left in a folder.

    Example: stalewise report runs/demo

    Args:
        folder: Where fit, plan, predict, simulate and train wrote.
    """
    from stalewise.report import write_report

    page = write_report(folder)
    say(json, {"report": str(page)}, [f"wrote {page}"])


def figures(
    *names: str, data: Path | None = None, quick: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    json: Json = False, seed: Seed = 0, out: Out = None,
) -> None:  # fmt: skip
    """Test the source paper's claims: theory beside independent simulation, and captions with the numbers.

    workers: more workers are not always faster. acceleration: a small staleness may accelerate. divergence: a large one
    diverges, and where. bandwidth: limited bandwidth has a best number of workers and a best learning rate. trigger:
    event-triggered communication saves traffic. hitting: first hitting times under five laws of delay. digits, mnist: a
    network, for which more workers help, then hurt.

    All of them unless some are named (mnist with --data alone); about three minutes. Whether a claim holds is computed.
    With --out they are written as figures.html, one self-contained page, figures.json (data), figures.md (captions) and
    an SVG file each.

    Example: stalewise figures workers bandwidth --out runs/figures

    Args:
        names: Which figures.
        data: Folder of MNIST's IDX files, for mnist.
        quick: A rough look, with an eighth of the repetitions.
    """
    from stalewise.claims import Effort, draw, wanted
    from stalewise.report.figures import claims_page, claims_text

    check_folder(out)
    effort = Effort(seed, quick, data)
    chosen, notes = wanted(names, effort)
    drawn = []
    with progress_bar("figures") as progress:
        for done, name in enumerate(chosen):

            def tell(share: float, message: str, done: int = done) -> None:
                progress((done + share) / len(chosen), message)

            drawn.append(draw(name, replace(effort, progress=tell)).as_dict())
    if out is not None:
        pictures, left = _pictures(drawn)
        notes += left
        texts = {"figures.html": claims_page(drawn, notes), "figures.md": claims_text(drawn)}
        write_answer(out, {"figures.json": to_json(drawn), **texts, **pictures})
    lines = [line for one in drawn for line in (f"{one['name']}: {one['claim']} {one['verdict']}",
             *(f"  {told}" for told in one["caption"]), "")]  # fmt: skip
    where = f"pictures   {out / 'figures.html'}" if out else "pictures   with --out FOLDER"
    say(json, {"figures": drawn, "notes": notes}, [*lines, where, *_notes(notes)])


def _pictures(drawn: list[dict]) -> tuple[dict[str, str], list[str]]:
    """SVG files by name, or why there are none."""
    from stalewise.errors import MissingExtraError
    from stalewise.report.drawing import claim_svg

    try:
        return {f"{one['name']}.svg": claim_svg(one) for one in drawn}, []
    except MissingExtraError as error:
        return {}, [f"no SVG files: {error}"]


ALL = (fit, measure, limit, chart, predict, plan, simulate, train, compare, sweep, report, figures)


def _tell(answer: Trajectory, json: bool) -> bool:
    rate, age = answer.update_rate, answer.delay.mean
    say(json, answer.model_dump(), [
        answer.status,
        f"update rate     {_or(rate)} /s",
        f"staleness       mean {_or(answer.staleness.mean)}, 99 % at most {_or(answer.staleness.p99)} updates",
        f"age of gradient {_or(age)} s on average",
        f"gradients       {answer.gradients.applied:.0f} applied, {answer.gradients.dropped:.0f} dropped",
        f"noise floor     {_or(answer.noise_floor)}",
        *_notes(answer.notes),
    ])  # fmt: skip
    return answer.diverges


def _or(value: float | None, form: str = ".4g") -> str:
    return "-" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f} %"


def _seconds(row: dict[str, Any]) -> str:
    value = row["time_to_target"]
    return "     never" if value is None else f"{value:8.4g} s"


def _brief(schedule: dict[str, Any]) -> str:
    parts = [schedule["policy"], f"{schedule['active_workers']} workers"]
    if schedule.get("group", 1) > 1:
        parts.append(f"group {schedule['group']}")
    if "max_staleness" in schedule:
        parts.append(f"max_staleness {schedule['max_staleness']}")
    return ", ".join([*parts, f"learning rate {schedule['learning_rate']:.4g}"])


def _notes(notes: list[str]) -> list[str]:
    return ["", *(f"note: {note}" for note in notes)] if notes else []
