"""Metrics to TensorBoard or MLflow, where they are installed."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from stalewise.errors import InputError, MissingExtraError

Metrics = dict[str, float]
Sink = Callable[[int, Metrics], None]
SINKS = ("tensorboard", "mlflow")
WAITING = 50  # metrics that a tracking server may be behind
PATIENCE = 20.0  # and seconds it has for them at the end


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

    with mlflow.start_run(run_name="stalewise train") as run:

        def hand(update: int, metrics: Metrics) -> None:
            mlflow.log_metrics(metrics, step=update, run_id=run.info.run_id)

        with _apart(hand) as sink:
            yield sink


@contextmanager
def _apart(hand: Sink) -> Iterator[Sink]:
    """The same sink in a thread of its own: a tracking server that hangs holds up nothing.

    Raises:
        OSError: `WAITING` metrics wait; whatever ``hand`` raised before.
    """
    waiting: queue.Queue[tuple[int, Metrics] | None] = queue.Queue()
    failed: list[Exception] = []

    def work() -> None:
        while (item := waiting.get()) is not None:
            try:
                hand(*item)
            except Exception as error:  # told by the next call
                failed.append(error)
                return

    thread = threading.Thread(target=work, name="metrics", daemon=True)
    thread.start()

    def put(update: int, metrics: Metrics) -> None:
        if failed:
            raise failed[0]
        if waiting.qsize() >= WAITING:
            raise TimeoutError(f"{WAITING} of them wait for the tracking server")
        waiting.put((update, metrics))

    try:
        yield put
    finally:
        waiting.put(None)
        thread.join(PATIENCE)
