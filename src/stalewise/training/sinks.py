"""Metrics to TensorBoard or MLflow, where they are installed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from stalewise.errors import InputError, MissingExtraError

Metrics = dict[str, float]
Sink = Callable[[int, Metrics], None]
SINKS = ("tensorboard", "mlflow")


@contextmanager
def open_sinks(names: Sequence[str], folder: Path | None) -> Iterator[Sink]:
    """One function that hands metrics, by update, to all of these.

    Args:
        names: "tensorboard": event files in ``folder/tensorboard``; "mlflow": a run of the tracking server that
            MLFLOW_TRACKING_URI names, else in ``folder/mlflow.db``.
        folder: Of the run.

    Raises:
        InputError: A name is unknown, or there is no folder.
        MissingExtraError: It is not installed.
    """
    with ExitStack() as stack:
        sinks = [stack.enter_context(_open(name, folder)) for name in names]

        def hand(update: int, metrics: Metrics) -> None:
            for sink in sinks:
                sink(update, metrics)

        yield hand


def _open(name: str, folder: Path | None) -> AbstractContextManager[Sink]:
    if name not in SINKS:
        raise InputError(f"--log must be one of {', '.join(SINKS)}, got {name!r}")
    if folder is None:
        raise InputError(f"--log {name} needs a folder: give --out")
    return _tensorboard(folder) if name == "tensorboard" else _mlflow(folder)


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Sink]:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (optional)
    except ModuleNotFoundError:
        raise MissingExtraError("TensorBoard", "tensorboard") from None
    writer = SummaryWriter(str(folder / "tensorboard"))

    def hand(update: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, update)
        writer.flush()

    try:
        yield hand
    finally:
        writer.close()


@contextmanager
def _mlflow(folder: Path) -> Iterator[Sink]:
    try:
        import mlflow  # noqa: PLC0415  (optional)
    except ModuleNotFoundError:
        raise MissingExtraError("MLflow", "mlflow") from None
    if not mlflow.is_tracking_uri_set():
        mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")

    def hand(update: int, metrics: Metrics) -> None:
        mlflow.log_metrics(metrics, step=update)

    with mlflow.start_run(run_name="stalewise train"):
        yield hand
