"""What is trained: networks as functions of one flat parameter vector."""

from stalewise.workloads.networks import AbstractNetwork, load_network

__all__ = ["AbstractNetwork", "load_network"]
