"""Studies answered by mathematics, and for networks by a cheap pilot."""

from stalewise.prediction.advice import advise
from stalewise.prediction.charts import KINDS, Chart, chart
from stalewise.prediction.compare import Comparison, compare, differences
from stalewise.prediction.engine import predict
from stalewise.prediction.limit import Limit, limit, stability_chart, stiffest
from stalewise.prediction.pilots import predict_network
from stalewise.prediction.quadratic import predict_quadratic

__all__ = [
    "KINDS",
    "Chart",
    "Comparison",
    "Limit",
    "advise",
    "chart",
    "compare",
    "differences",
    "limit",
    "predict",
    "predict_network",
    "predict_quadratic",
    "stability_chart",
    "stiffest",
]
