r"""Networks predicted from cheap pilots: the same training at higher noise temperatures, drawn back to its own.

What a run costs is samples, and samples only buy a lower noise temperature :math:`\theta = \eta/B` (`design`). To first
order in the temperature the mean loss at a given time is

.. math:: \bar F(t; \theta) = F_0(t) + \theta K(t),

for any loss, staleness and policy: noise is a perturbation of the same delayed dynamics. Two pilots of the same fleet
and learning rate with smaller batches therefore give the whole curve of the run (`temperature`). Where batches cannot
be small enough, a smaller fleet stands in for the large one (`fleets`).
"""

from stalewise.prediction.pilots.design import Pilot, pilots_of
from stalewise.prediction.pilots.fleets import Fleet, own_fleet, smaller_fleet
from stalewise.prediction.pilots.network import BUDGET, SEEDS, predict_network
from stalewise.prediction.pilots.runs import Curves, Forecast, Pilots, losses_of
from stalewise.prediction.pilots.temperature import drawn_back, smoothed

__all__ = [
    "BUDGET",
    "SEEDS",
    "Curves",
    "Fleet",
    "Forecast",
    "Pilot",
    "Pilots",
    "drawn_back",
    "losses_of",
    "own_fleet",
    "pilots_of",
    "predict_network",
    "smaller_fleet",
    "smoothed",
]
