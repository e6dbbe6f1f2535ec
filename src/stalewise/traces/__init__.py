"""What a cluster was measured to do: one row per gradient."""

from stalewise.traces.files import FORMATS, parse_columns, read_trace
from stalewise.traces.metrics import StalenessMetrics, read_metrics
from stalewise.traces.trace import COLUMNS, Trace
from stalewise.traces.units import (
    UNITS,
    batch_fraction_to_updates,
    queue_length_to_updates,
    samples_to_updates,
    versions_to_updates,
)
from stalewise.traces.writer import Secured, TraceWriter

__all__ = [
    "COLUMNS",
    "FORMATS",
    "UNITS",
    "Secured",
    "StalenessMetrics",
    "Trace",
    "TraceWriter",
    "batch_fraction_to_updates",
    "parse_columns",
    "queue_length_to_updates",
    "read_metrics",
    "read_trace",
    "samples_to_updates",
    "versions_to_updates",
]
