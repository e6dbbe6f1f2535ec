"""Which law do measured delays follow, and which simplifications do they allow?"""

from stalewise.delays.fitting.fit import LEAST, fit_delay
from stalewise.delays.fitting.ranking import Candidate, rank_laws
from stalewise.delays.fitting.result import Cost, DelayFit, WorkerFit

__all__ = ["LEAST", "Candidate", "Cost", "DelayFit", "WorkerFit", "fit_delay", "rank_laws"]
