"""What a cluster was measured to do: one row per gradient."""

from stalewise.traces.files import UNITS, TraceWriter, read_trace
from stalewise.traces.trace import COLUMNS, Trace

__all__ = ["COLUMNS", "UNITS", "Trace", "TraceWriter", "read_trace"]
