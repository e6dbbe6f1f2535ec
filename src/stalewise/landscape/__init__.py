"""What is being minimised: curvature and gradient noise, measured with PyTorch."""

from stalewise.landscape.curvature import curvature_at_start, leading_curvature
from stalewise.landscape.measure import measure
from stalewise.landscape.result import Landscape, load_landscape

__all__ = ["Landscape", "curvature_at_start", "leading_curvature", "load_landscape", "measure"]
