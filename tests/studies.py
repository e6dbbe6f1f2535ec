"""Studies the tests share."""

from stalewise.study import Study, make_study


def quadratic(
    compute: str, workers: int, rate: float, *, noise: float = 0.0, target: float = 0.005, **schedule
) -> Study:
    """Two curvatures, 1 and 0.1, from distance 1."""
    cluster = {"workers": workers, "compute": compute, "start": schedule.pop("start", "together")}
    return make_study(
        {
            "workload": {"eigenvalues": [1.0, 0.1], "gradient_noise": noise, "start": 1.0},
            "cluster": cluster,
            "schedule": {"policy": "async", "learning_rate": rate, **schedule},
            "target": {"loss": target},
        }
    )
