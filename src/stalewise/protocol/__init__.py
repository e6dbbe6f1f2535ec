"""What a server does with a gradient: one pure state machine, and a table of policies."""

from stalewise.protocol.compression import Compression, parse_compression
from stalewise.protocol.deliveries import Deliveries
from stalewise.protocol.descent import Descent
from stalewise.protocol.instructions import (
    Again,
    Cancel,
    Contribution,
    Drop,
    Expire,
    Hold,
    Instruction,
    Start,
    Step,
    Train,
    Unsent,
)
from stalewise.protocol.rate import RateSchedule, parse_rate_schedule
from stalewise.protocol.rules import ON_STALE, POLICIES, Rules, rules_of
from stalewise.protocol.server import Server, Tally
from stalewise.protocol.weights import Weight, parse_weight, weigh

__all__ = [
    "ON_STALE",
    "POLICIES",
    "Again",
    "Cancel",
    "Compression",
    "Contribution",
    "Deliveries",
    "Descent",
    "Drop",
    "Expire",
    "Hold",
    "Instruction",
    "RateSchedule",
    "Rules",
    "Server",
    "Start",
    "Step",
    "Tally",
    "Train",
    "Unsent",
    "Weight",
    "parse_compression",
    "parse_rate_schedule",
    "parse_weight",
    "rules_of",
    "weigh",
]
