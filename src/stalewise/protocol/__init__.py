"""What a server does with a gradient: one pure state machine, and a table of policies."""

from stalewise.protocol.deliveries import Deliveries
from stalewise.protocol.instructions import (
    Again,
    Cancel,
    Contribution,
    Drop,
    Hold,
    Instruction,
    Start,
    Step,
    Unsent,
)
from stalewise.protocol.rules import ON_STALE, POLICIES, Rules, rules_of
from stalewise.protocol.server import Server, Tally

__all__ = [
    "ON_STALE",
    "POLICIES",
    "Again",
    "Cancel",
    "Contribution",
    "Deliveries",
    "Drop",
    "Hold",
    "Instruction",
    "Rules",
    "Server",
    "Start",
    "Step",
    "Tally",
    "Unsent",
    "rules_of",
]
