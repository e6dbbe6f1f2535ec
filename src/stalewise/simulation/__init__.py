"""Virtual time: the same server as a real run, delays from their law, no cluster needed."""

from stalewise.simulation.engine import simulate, simulate_network
from stalewise.simulation.replay import Replayed, replay

__all__ = ["Replayed", "replay", "simulate", "simulate_network"]
