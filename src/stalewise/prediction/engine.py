"""`predict`: a study answered by mathematics, or for a network by cheap pilots and mathematics."""

from collections.abc import Callable

from stalewise import checks
from stalewise.errors import InputError
from stalewise.prediction.advice import advise
from stalewise.prediction.pilots import predict_network
from stalewise.prediction.quadratic import predict_quadratic
from stalewise.simulation import simulate
from stalewise.study import Study
from stalewise.trajectory import Trajectory


def predict(
    study: Study, *, seed: int = 0, budget: float | None = None, starts: int = 1,
    progress: Callable[[float, str], None] | None = None,
) -> Trajectory:  # fmt: skip
    """Predict what a study will do.

    A quadratic is answered by the delayed recursion: staleness law, stability, mean and variance of every mode,
    settling time. For a network the loss comes from two cheap pilots in virtual time, the same schedule with smaller
    batches and so at higher noise temperatures, drawn back to its own (`prediction.pilots`; their cost is in the
    notes), and everything about time and staleness from formulas.

    Args:
        study: What to predict; its schedule needs a policy and a learning rate.
        seed: Of the pilots, and of staleness counted in virtual time where there is no formula.
        budget: Samples of a network's pilots over those of the run they predict, seed for seed; above 0, at most 1.
            Unless given a fifth, and more where noise would decide.
        starts: First parameters of a network that its 8 seeds take in turn; with 1 all begin alike, and the band is
            over delays and batches alone.
        progress: Called with the fraction done and a message.

    Returns:
        Trajectory with engine "predict". For a quadratic, ``loss_low`` and ``loss_high`` are the loss without and
        with full staleness noise, which bracket the estimate; for a network, a 95 % band for the mean loss.

    Limits:
        Quadratics: time to target within 3 % of simulation for coefficients of variation up to 0.5 and up to 0.7 of
        the mean-square limit; up to 25 % early for lognormal delays of CV 1 at 0.7 of the limit (docs/theory).
        Networks: docs/networks.
    """
    checks.at_least("seed", seed, 0)
    checks.at_least("starts", starts, 1)
    if budget is not None and not 0.0 < budget <= 1.0:
        raise InputError(f"budget must be above 0 and at most 1, got {budget:g}")
    if study.schedule.trigger > 0:
        note = "no formula for a trigger, what is sent depends on the gradients: run in virtual time as it is"
        answer = simulate(study, seed=seed, starts=starts, progress=progress)
        return answer.model_copy(update={"engine": "predict"}).with_note(note)
    if study.workload.is_quadratic:
        answer = predict_quadratic(study, seed=seed)
    else:
        answer = predict_network(study, seed=seed, budget=budget, starts=starts, progress=progress)
    return answer.with_note(advise(study, answer, seed=seed))
