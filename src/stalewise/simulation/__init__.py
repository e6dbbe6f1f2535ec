"""Virtual time: the same server as a real run, delays from their law, no cluster needed."""

from stalewise.simulation.engine import simulate, simulate_network
from stalewise.simulation.network import NetworkRun, advance
from stalewise.simulation.replay import Replayed, replay

__all__ = ["NetworkRun", "Replayed", "advance", "replay", "simulate", "simulate_network"]
