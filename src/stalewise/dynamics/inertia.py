r"""What momentum and weight decay make of a gradient: a filter between it and the parameters.

A gradient moves x at once and in every later step, by :math:`-\eta` times the coefficients of
:math:`B(w)/(1 - \beta w)`, :math:`B(w) = b_0 + b_1 w`: heavy-ball momentum has B = 1, Nesterov's
:math:`1 + \beta - \beta w`. So a mode's characteristic function is

.. math:: c(w) = (1 - w)(1 - \beta w) + h\,w\,B(w)\,(P(w) + \rho/\lambda),

with weight decay :math:`\rho`, which acts on x as it is when the step is taken.
"""

from dataclasses import dataclass

from stalewise.errors import InputError

MOST_AVERAGED = 2000.0  # updates, or blocks of them, over which momentum may average: some 10 s of work


@dataclass(frozen=True)
class StepFilter:
    """The filter of one step, or of a block of steps taken as one.

    Attributes:
        pole: beta, what a step keeps of the last one.
        now, later: b_0 and b_1.
        decay: Weight decay over curvature.
    """

    pole: float = 0.0
    now: float = 1.0
    later: float = 0.0
    decay: float = 0.0

    @property
    def gain(self) -> float:
        """What a gradient moves x by in the long run, over what it would without momentum."""
        return (self.now + self.later) / (1.0 - self.pole)

    @property
    def lag(self) -> float:
        """By how many steps momentum delays a gradient on average."""
        return self.later / (self.now + self.later) + self.pole / (1.0 - self.pole)

    @property
    def carried(self) -> float:
        """What of the velocity the next step takes: x loses now x gradient + carried x velocity."""
        return self.later + self.now * self.pole


@dataclass(frozen=True)
class Inertia:
    """How one mode's steps are filtered; none by default.

    Attributes:
        momentum: beta, 0 or more and below 1.
        nesterov: Whether it is Nesterov's.
        decay: Weight decay over curvature.
    """

    momentum: float = 0.0
    nesterov: bool = False
    decay: float = 0.0

    def filter(self, block: int = 1) -> StepFilter:
        r"""The filter of ``block`` steps taken as one of block x h.

        A gradient that stays the same for b steps from rest moves x by
        :math:`\kappa = (b - \alpha)/(1 - \beta)` and leaves a velocity :math:`\gamma = (1 - \beta^b)/(1 - \beta)`; a
        velocity of 1 moves it by :math:`\alpha = \beta\gamma`. Exact for such gradients.
        """
        beta = self.momentum
        left = (1.0 - beta**block) / (1.0 - beta)
        carried = beta * left
        now = (block - carried) / (1.0 - beta)
        if self.nesterov:
            now, carried = block + beta * now, beta * carried
        pole = beta**block
        return StepFilter(pole, now / block, (carried * left - now * pole) / block, self.decay)

    def check_resolved(self, block: int = 1) -> None:
        """Refuse momentum that averages over more updates, in blocks of ``block``, than can be followed."""
        most = (1.0 - 1.0 / MOST_AVERAGED) ** (1.0 / block)
        if self.momentum > most:
            raise InputError(
                f"momentum must be at most {most:.10g} here, got {self.momentum:.10g}: it averages over "
                f"{1.0 / (1.0 - self.momentum):.3g} updates, too many to follow; try simulate"
            )


NO_INERTIA = Inertia()
NO_FILTER = StepFilter()
