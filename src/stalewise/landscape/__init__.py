"""What is being minimised: curvature and gradient noise, measured with PyTorch."""

from stalewise.landscape.curvature import curvature_at_start, leading_curvature
from stalewise.landscape.measure import Landscape, measure

__all__ = ["Landscape", "curvature_at_start", "leading_curvature", "measure"]
