"""What a server does with a gradient: pure state machines, one small class a policy."""

from stalewise.protocol.instructions import Contribution, Drop, Hold, Instruction, Start, Step
from stalewise.protocol.server import AbstractServer, AsyncServer, SyncServer, Tally

__all__ = [
    "AbstractServer",
    "AsyncServer",
    "Contribution",
    "Drop",
    "Hold",
    "Instruction",
    "Start",
    "Step",
    "SyncServer",
    "Tally",
]
