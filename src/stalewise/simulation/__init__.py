"""Virtual time: the same server as a real run, delays from their law, no cluster needed."""

from stalewise.simulation.engine import simulate, simulate_network

__all__ = ["simulate", "simulate_network"]
