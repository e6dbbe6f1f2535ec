"""The source paper's claims as executable figures: theory, independent simulation, and a caption with the numbers.

Yu, Chen, Poor, "Distributed Stochastic Gradient Descent with Staleness: A Stochastic Delay Differential Equation Based
Framework" (IEEE Transactions on Signal Processing, 2025).
"""

from stalewise.claims.catalogue import CLAIMS, draw, wanted
from stalewise.claims.figure import Axis, Curve, Effort, Figure, Mark, Panel

__all__ = ["CLAIMS", "Axis", "Curve", "Effort", "Figure", "Mark", "Panel", "draw", "wanted"]
