"""Transforms that are rational: chains of exponential stages, and choices of them."""

from numpy.polynomial import Polynomial

from stalewise.delays import AbstractChoice, AbstractDelay, Gamma, ShiftedExponential, Sum

MOST_STAGES = 24  # longer chains are not written as polynomials


def rational(law: AbstractDelay) -> tuple[Polynomial, Polynomial] | None:
    """Numerator and denominator of a law's transform; None where it is not rational, or of more than 24 stages."""
    match law:
        case ShiftedExponential(shift=0.0, exponential_mean=mean):
            return Polynomial([1.0]), Polynomial([1.0, mean])
        case Gamma(gamma_mean=mean, shape=shape) if shape == round(shape) and shape <= MOST_STAGES:
            return Polynomial([1.0]), Polynomial([1.0, mean / shape]) ** round(shape)
        case Sum(parts=parts):
            above, below = Polynomial([1.0]), Polynomial([1.0])
            for part in parts:
                if (found := rational(part)) is None:
                    return None
                above, below = above * found[0], below * found[1]
        case AbstractChoice():
            above, below = Polynomial([0.0]), Polynomial([1.0])
            for share, part in zip(law.probabilities, law.laws, strict=True):
                if (found := rational(part)) is None:
                    return None
                above, below = above * found[1] + share * found[0] * below, below * found[1]
        case _:
            return None
    return (above, below) if below.degree() <= MOST_STAGES else None
