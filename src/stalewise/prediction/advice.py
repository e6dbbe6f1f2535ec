"""The number that would do, where a schedule diverges or gradient noise holds the loss above the target."""

from stalewise.prediction.limit import stiffest
from stalewise.prediction.quadratic import noise_floor
from stalewise.staleness import arrivals
from stalewise.dynamics import step_limit
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
    if answer.time_to_target.mean is not None and not answer.diverges:
        return None
    rate, target = study.learning_rate, study.target.loss
    timing = arrivals(study, seed=seed)
    if timing.rate <= 0:
        bound, usual = study.schedule.max_staleness, 2 * study.active_workers
        return f"max_staleness = {bound} drops every gradient; leave it out, or take about {usual}"
    curvature, _ = stiffest(study)
    limit = step_limit(timing).mean_square / curvature
    if answer.diverges:
        if rate < limit:
            if study.workload.is_quadratic:
                return None
            return (
                f"learning rate {rate:g} is below the limit at the curvature of the start, {limit:.4g}, but the curvature "
                f"moves; {0.5 * rate:.2g}, half of it, is the next to try"
            )
        where = "" if study.workload.is_quadratic else " at the start"
        return (
            f"learning rate {rate:g} is past the mean-square limit {limit:.4g} of {study.active_workers} workers at "
            f"curvature {curvature:.4g}{where}; {SAFE * limit:.2g}, half of the limit, would do"
        )
    if not study.workload.is_quadratic:
        return None
    floor = noise_floor(study, timing)
    if floor < target:
        return None
    low, high = 1e-12 * limit, min(rate, 0.999 * limit)
    for _ in range(60):
        middle = (low * high) ** 0.5
        above = noise_floor(study.with_schedule(learning_rate=middle), timing) > 0.5 * target
        low, high = (low, middle) if above else (middle, high)
    return f"a learning rate of {low:.2g} would bring the noise floor to half of the target {target:g}"
