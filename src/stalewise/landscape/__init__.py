"""What is being minimised: curvature and gradient noise, measured with PyTorch."""

from stalewise.landscape.curvature import leading_curvature
from stalewise.landscape.measure import Landscape, measure

__all__ = ["Landscape", "leading_curvature", "measure"]
