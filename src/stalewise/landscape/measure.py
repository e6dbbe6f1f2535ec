"""A look at a network's landscape: curvature, gradient noise, time of one gradient, all with error bars."""

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stalewise import checks
from stalewise.errors import InputError
from stalewise.landscape.budget import DEFAULT, LEAST, PROBES, PRODUCT, STEPS, Budget, Plan, parse_budget, plan_for
from stalewise.landscape.noise import Noise, Rounds, Sums, collect, covariance_of, noise_of, seconds_of
from stalewise.landscape.result import Batch, Density, Eigenvalue, Estimate, Landscape, NoiseSummary, Place, rest_of
from stalewise.landscape.spectrum import Leading, density, leading
from stalewise.study import Workload
from stalewise.workloads import load_network

if TYPE_CHECKING:
    from stalewise.workloads.network import Network, Vector

Array = NDArray[np.float64]
Product = Callable[[Array], tuple[NDArray[np.floating], Array]]  # and what each batch says of v'Av
Progress = Callable[[float, str], None]
COUNT = 10
_UNDIFFERENTIABLE = re.compile("derivative|differentia")  # in what PyTorch says then
NO_GAUSS_NEWTON = (
    "no Gauss-Newton matrix: the loss must see the parameters through one call of the model alone, which returns one "
    "tensor"
)
OTHER_SIZES = (0.25, 4.0)  # of the batch
TIMED = 40  # gradients of each other size


def measure(
    workload: Workload, *, batch_size: int | None = None, budget: str | int = DEFAULT, eigenvalues: int = COUNT,
    updates: Sequence[int] = (), learning_rate: float | None = None, seed: int = 0, progress: Progress | None = None,
) -> Landscape:  # fmt: skip
    """Measure a network at its first parameters and, if asked, where plain SGD takes it.

    Args:
        workload: A network.
        batch_size: Samples a gradient; the loader's, or 32, unless given.
        budget: For each place: gradients (20000), or a time (``"60s"``, ``"2min"``) that is turned into gradients.
        eigenvalues: Leading ones sought of the Hessian and of the Gauss-Newton matrix.
        updates: Updates of plain SGD after which to measure again; they come on top of the budget.
        learning_rate: Of those.
        seed: Of first parameters, batches and random vectors.
        progress: Called with the share done and what is being done.

    Raises:
        InputError: The budget is too small, the loss is not finite, or the loss has no second derivatives.
        TaskError: The task's own code raises.
    """
    checks.at_least("--eigenvalues", eigenvalues, 1)
    checks.at_least("seed", seed, 0)
    allowed, places = parse_budget(str(budget)), _places(updates, learning_rate)
    network = load_network(workload)
    begun, size = time.perf_counter(), batch_size or network.batch_size or 32
    eigenvalues = min(eigenvalues, network.size)
    plan = plan_for(_gradients(allowed, network, size, seed), size, eigenvalues)
    meter = _Meter(plan.total * len(places) + places[-1], progress)
    parameters, done, found, notes = network.start(seed), 0, [], dict[str, None]()
    for at in places:
        parameters = _descend(network, parameters, size, range(done, at), learning_rate, seed, meter)
        look = _Look(network, parameters, size, plan, seed, meter, notes)
        with network.blaming():
            found.append(look.place(at, learning_rate if at else None))
        done = at
    return Landscape(
        workload=workload.model_dump(include={"kind", "data", "options"}, exclude_none=True),
        seed=seed, parameters=network.size, batch_size=size, gradients=meter.spent,
        seconds=time.perf_counter() - begun, places=found, notes=list(notes),
    )  # fmt: skip


def _places(updates: Sequence[int], learning_rate: float | None) -> list[int]:
    """Updates to measure after, the start first."""
    places = sorted({0, *(checks.at_least("--updates", one, 0) for one in updates)})
    if places[-1] and learning_rate is None:
        raise InputError(
            "schedule.learning_rate is missing: --updates takes steps of plain SGD; add, for example, "
            "--set schedule.learning_rate=0.05"
        )
    return places


def _gradients(allowed: Budget, network: "Network", size: int, seed: int) -> float:
    """A budget in gradients; of seconds those that go into it here, by the median of seven."""
    if allowed.gradients is not None:
        return allowed.gradients
    assert allowed.seconds is not None
    parameters, taken = network.start(seed), []
    for index in range(8):
        begun = time.perf_counter()
        network.gradient(parameters, (seed, 0, index), size)
        taken.append(time.perf_counter() - begun)
    found = allowed.seconds / float(np.median(taken[1:]))
    if found < LEAST:
        raise InputError(
            f"--budget: {allowed.seconds:g} s is {found:.0f} gradients here, {LEAST:,} are needed: "
            f"{1.1 * LEAST / found * allowed.seconds:.2g}s would do"
        )
    return found


def _descend(
    network: "Network", parameters: "Vector", size: int, steps: range, rate: float | None, seed: int, meter: "_Meter"
) -> "Vector":
    """Parameters after steps of plain SGD."""
    for step in steps:
        gradient, _ = network.gradient(parameters, (seed, 1, step), size)
        with np.errstate(over="ignore", invalid="ignore"):
            parameters = np.asarray(parameters - np.float32(rate or 0.0) * gradient, np.float32)
        meter.add(1.0, f"update {step + 1}")
    return parameters


class _Meter:
    """Gradients spent, and the share of what is expected."""

    def __init__(self, expected: float, progress: Progress | None) -> None:
        self.spent, self._expected, self._progress = 0.0, expected, progress

    def add(self, gradients: float, doing: str) -> None:
        """Count what was just spent."""
        self.spent += gradients
        if self._progress is not None:
            self._progress(min(self.spent / self._expected, 1.0), doing)


class _Look:
    """All measurements at one place."""

    def __init__(
        self, network: "Network", parameters: "Vector", size: int, plan: Plan, seed: int, meter: _Meter,
        notes: dict[str, None],
    ) -> None:  # fmt: skip
        self._network, self._parameters, self._size = network, parameters, size
        self._plan, self._seed, self._meter, self._notes = plan, seed, meter, notes
        all_ = network.samples if network.any_batch else None  # in sixteen parts, but where parts are other losses
        self._derivatives = network.derivatives(parameters, min(plan.samples, all_ or plan.samples))
        self._rng = np.random.default_rng([2, seed])

    def place(self, updates: int, learning_rate: float | None) -> Place:
        """What there is at these parameters."""
        loss = self._loss(updates, learning_rate)
        about = self._derivatives
        hessian = self._leading(about.hessian, "Hessian", self._rng.standard_normal(self._network.size))
        gauss = None
        if about.splits():
            near = hessian.vectors.sum(1) + self._rng.standard_normal(self._network.size) / np.sqrt(self._network.size)
            gauss = self._leading(about.gauss_newton, "Gauss-Newton", near)
        else:
            self._note(NO_GAUSS_NEWTON)

        batches, noise = self._noise(hessian.vectors, first=updates == 0)
        return Place(
            updates=updates, learning_rate=learning_rate, loss=loss, samples=about.samples,
            hessian=_eigenvalues(hessian, about.shares), density=self._density(hessian), noise=noise, batches=batches,
            gauss_newton=None if gauss is None else _eigenvalues(gauss, about.shares),
        )  # fmt: skip

    def _loss(self, updates: int, learning_rate: float | None) -> float:
        """Training loss; an error where it is not finite."""
        loss = self._network.loss(self._parameters)
        if np.isfinite(loss):
            return loss
        if not updates:
            raise InputError(f"workload.kind: the loss at the first parameters must be finite, got {loss}")
        raise InputError(
            f"schedule.learning_rate must be smaller, got {learning_rate}: after {updates} updates the loss is {loss}"
        )

    def _leading(self, product: Product, name: str, first: Array) -> Leading:
        count, plan = min(self._plan.count, self._network.size), self._plan
        found = leading(self._counted(product, name), self._network.size, count, plan.products, first)
        if len(found.values) == 0:
            raise InputError(
                f"--budget: no eigenvalue of the {name} matrix has separated after {plan.products} products; "
                "ask for more --eigenvalues"
            )
        if len(found.values) < count:
            self._note(f"{len(found.values)} of {count} eigenvalues of the {name} matrix have separated")
        return found

    def _counted(self, product: Product, name: str) -> Callable[[Array], tuple[Array, Array]]:
        cost = PRODUCT * self._derivatives.samples / self._size

        def counted(direction: Array) -> tuple[Array, Array]:
            try:
                moved, bends = product(direction)
            except RuntimeError as error:
                if not _UNDIFFERENTIABLE.search(str(error)):
                    raise
                raise InputError(
                    f"workload.kind: the loss has no second derivatives in PyTorch: {str(error).splitlines()[0]}"
                ) from None
            if not np.isfinite(moved).all():
                raise InputError(f"workload.kind: second derivatives of the loss ({name}) must be finite, got {moved}")
            self._meter.add(cost, name)
            return moved.astype(np.float64), bends

        return counted

    def _density(self, known: Leading) -> Density:
        product, size = self._counted(self._derivatives.hessian, "spectral density"), self._network.size
        found = density(lambda v: product(v)[0], size, known, PROBES, STEPS, self._rng)
        mean, error = found.mean()
        points, shares = found.points.ravel(), found.shares.ravel() / PROBES
        order = np.argsort(points)
        order = order[shares[order] > 0]
        return Density(
            eigenvalues=points[order].tolist(), shares=shares[order].tolist(), probes=PROBES,
            trace=Estimate(value=size * mean, standard_error=size * error),
        )  # fmt: skip

    def _noise(self, vectors: Array, first: bool) -> tuple[list[Batch], NoiseSummary]:
        """Noise of the study's batch and, at the first place, what other batches say of it and how long they take."""
        sums, noise, own = self._gradients(self._size, self._plan.gradients, vectors, worker=2)
        batches = [own]
        if self._network.any_batch and first:
            others = {max(1, round(one * self._size)) for one in OTHER_SIZES} - {self._size}
            batches += [self._gradients(size, TIMED, vectors[:, :0], worker=3)[2] for size in others]
        about = self._network.derivatives(self._parameters, self._plan.slopes)
        slopes = about.slopes(vectors) if about.samples > 1 else None
        if slopes is None:
            self._note("noise along eigenvectors is from batches: single samples have no losses of their own here")
            covariance = covariance_of(sums.along, self._size, "batches")
        else:
            self._meter.add(slopes.size / self._size, "noise along eigenvectors")
            covariance = covariance_of(slopes, 1, "samples")
        return sorted(batches, key=lambda one: one.batch_size), NoiseSummary(
            total=noise.total, covariance=covariance, rest=rest_of(noise.total, covariance, self._network.size),
            gradient_square=noise.gradient_square, scale=noise.scale, scale_two_batch=noise.two_batch,
        )  # fmt: skip

    def _gradients(self, size: int, number: int, vectors: Array, *, worker: int) -> tuple[Sums | Rounds, Noise, Batch]:
        sums = collect(
            self._network, self._parameters, size, number, vectors, (self._seed, worker),
            lambda: self._meter.add(size / self._size, "gradient noise"),
        )  # fmt: skip
        noise = noise_of(sums)
        if isinstance(sums, Rounds):
            self._note(f"noise is from {sums.rounds} rounds of the loader; no estimate of its scale by two batches")
        told = Batch(batch_size=size, gradients=len(sums.seconds), seconds=seconds_of(sums), total=noise.total)
        return sums, noise, told

    def _note(self, text: str) -> None:
        self._notes[text] = None


def _eigenvalues(found: Leading, shares: Array) -> list[Eigenvalue]:
    """With the standard error of a mean over batches of unequal shares."""
    spread = (found.bends - (found.bends @ shares)[:, None]) ** 2 @ shares
    parts = len(shares)
    errors = np.sqrt(spread / max(parts - 1, 1)) if parts > 1 else np.abs(found.values)
    return [
        Eigenvalue(value=float(v), residual=float(r), standard_error=float(e))
        for v, r, e in zip(found.values, found.residuals, errors, strict=True)
    ]
