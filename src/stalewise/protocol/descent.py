r"""How a step moves the parameters: gradient descent with momentum and weight decay.

.. math:: d = g + \rho\,x, \qquad v \leftarrow \beta v + d, \qquad
          x \leftarrow x - \eta\,v \quad\text{or, Nesterov's,}\quad x \leftarrow x - \eta\,(d + \beta v)

with g the (weighted mean) gradient of a step, in the order of ``torch.optim.SGD`` without dampening: weight decay acts
on the parameters as they are when the step is taken, however stale the gradient.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Descent:
    """Stochastic gradient descent as one server does it.

    Attributes:
        learning_rate: eta.
        momentum: beta, 0 or more and below 1.
        nesterov: Whether momentum is Nesterov's.
        weight_decay: rho.
    """

    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    @property
    def shares(self) -> tuple[float, float]:
        """What of d, and of the new v, a step takes: (0, 1), Nesterov's (1, beta)."""
        return (1.0, self.momentum) if self.nesterov else (0.0, 1.0)
