"""The number that would do, where a schedule diverges or gradient noise holds the loss above the target."""

from stalewise.prediction.modes import learning_rate_limit, stiffest
from stalewise.prediction.quadratic import noise_floor
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Study
from stalewise.trajectory import Trajectory

SAFE = 0.5  # of the mean-square limit


def advise(study: Study, answer: Trajectory, *, seed: int = 0) -> str | None:
    """What learning rate would do instead, in a sentence; None where nothing is wrong or nothing is known to help.

    Args:
        study: The study that was answered, with a learning rate.
        answer: A trajectory of it, from any engine.
        seed: Used where staleness is counted in virtual time.
    """
    if (answer.time_to_target.mean is not None and not answer.diverges) or study.schedule.trigger > 0:
        return None
    if not study.workload.is_quadratic:
        return _stable_network(study, seed) if answer.diverges else None
    timing = arrivals(study, seed=seed)
    limit = learning_rate_limit(study, timing).mean_square
    return _stable_rate(study, limit) if answer.diverges else _lower_floor(study, timing, limit)


def _stable_network(study: Study, seed: int) -> str | None:
    """Of a network the curvature must be measured: no advice where a user's model has none, or none that is finite."""
    try:
        return _stable_rate(study, learning_rate_limit(study, arrivals(study, seed=seed)).mean_square)
    except Exception:  # whatever the model raises; the answer is there already and must not be lost
        return None


def _stable_rate(study: Study, limit: float) -> str | None:
    rate = study.learning_rate
    if rate >= limit:
        where = "" if study.workload.is_quadratic else " at the start"
        return (
            f"learning rate {rate:g} is past the mean-square limit {limit:.4g} at active_workers = "
            f"{study.active_workers} and curvature {stiffest(study)[0]:.4g}{where}; {SAFE * limit:.2g}, half of the "
            "limit, would do"
        )
    if study.workload.is_quadratic:
        return None
    return (
        f"learning rate {rate:g} is below the limit at the curvature of the start, {limit:.4g}, but the curvature "
        f"moves; {0.5 * rate:.2g}, half of it, is the next to try"
    )


def _lower_floor(study: Study, timing: Arrivals, limit: float) -> str | None:
    target = study.target.loss
    if noise_floor(study, timing) < target:
        return None
    low, high = 1e-12 * limit, min(study.learning_rate, 0.999 * limit)
    for _ in range(60):
        middle = (low * high) ** 0.5
        above = noise_floor(study.with_schedule(learning_rate=middle), timing) > 0.5 * target
        low, high = (low, middle) if above else (middle, high)
    return f"a learning rate of {low:.2g} would bring the noise floor to half of the target {target:g}"
