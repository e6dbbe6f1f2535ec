"""What is being minimised: curvature, measured with PyTorch."""

from stalewise.landscape.curvature import leading_curvature

__all__ = ["leading_curvature"]
