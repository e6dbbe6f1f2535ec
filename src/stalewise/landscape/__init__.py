"""What is being minimised: curvature and gradient noise, measured with PyTorch."""

from stalewise.landscape.budget import DEFAULT as DEFAULT_BUDGET
from stalewise.landscape.curvature import curvature_of, leading_curvature
from stalewise.landscape.measure import measure
from stalewise.landscape.result import Landscape, Place, load_landscape

__all__ = ["DEFAULT_BUDGET", "Landscape", "Place", "curvature_of", "leading_curvature", "load_landscape", "measure"]
