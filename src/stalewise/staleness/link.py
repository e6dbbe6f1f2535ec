r"""Workers that share one link, or one server, that takes one gradient at a time."""

import numpy as np
from scipy import special

from stalewise import checks
from stalewise.delays import AbstractDelay


def link_rate(delay: AbstractDelay, service: AbstractDelay, workers: int) -> float:
    r"""Gradients a second of N workers that compute for ``delay`` and then queue, first come first served.

    The closed queue M/G/1//N: with the service transform :math:`B^*`, :math:`\lambda = 1/E D` and mean service s the
    link is idle for a part (Takacs)

    .. math:: p_0 = \Big[1 + N \lambda s \sum_{n<N} \binom{N-1}{n} \prod_{i=1}^n (1/B^*(i\lambda) - 1)\Big]^{-1},
              \qquad R = (1 - p_0)/s.

    Exact for memoryless computing with any service; for memoryless service with any computing time, since it depends
    on the mean alone there; and for one worker, 1/(E D + s). Parameters behind a gradient are N/R old on average,
    computing and queue together, for every law.

    Two constants are exact too: min(N/(D + s), 1/s).

    Limits:
        Other laws: largest error near N = 1 + E D/s, where the link becomes full, and nil far from it. At s = 0.1 E D,
        N up to 32: gamma(4) computing -2.1 % (constant service), uniform(0.5, 1.5) computing -3.3 % (constant
        service), constant computing -4.6 % (gamma(4) service) and +1.9 % (lognormal service, c = 1.5), lognormal
        computing with c = 1.5 within 0.5 %.

    Args:
        delay: Law of what a worker does outside the link [s].
        service: Law of the time one gradient holds the link [s].
        workers: Active workers N.
    """
    checks.at_least("workers", workers, 1)
    if service.mean <= 0:
        return workers / delay.mean
    if workers == 1:
        return 1.0 / (delay.mean + service.mean)
    if delay.cv < 1e-12 and service.cv < 1e-12:
        return min(workers / (delay.mean + service.mean), 1.0 / service.mean)
    i = np.arange(1, workers)
    transform = np.log(np.real(service.laplace(i / delay.mean)))
    factors = np.concatenate([[0.0], np.cumsum(np.log(-np.expm1(transform)) - transform)])
    n = np.arange(workers)
    ways = special.gammaln(workers) - special.gammaln(n + 1) - special.gammaln(workers - n)
    busy = np.log(workers * service.mean / delay.mean) + special.logsumexp(ways + factors)
    return float(special.expit(busy)) / service.mean
