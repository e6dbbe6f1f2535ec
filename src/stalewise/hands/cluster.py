"""Ray: started on this machine, listening on loopback only, or a cluster that is joined."""

import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stalewise.errors import InputError, MissingExtraError
from stalewise.study import BUILT_IN, Study

OFF = ("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO")
ADDRESS = re.compile(r"\S+:\d{1,5}")
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextmanager
def local_ray(cores: int | None = None) -> Iterator[Any]:
    """A local Ray, started here unless one is running already, and stopped again if it was started here.

    Args:
        cores: That it may use; all of them unless given.

    Ray listens on all interfaces by default on Linux; with `RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0` it binds loopback only
    (`tests/training` looks at the sockets).
    """
    os.environ.setdefault(LOOPBACK, "0")
    ray = _import()
    if ray.is_initialized():
        yield ray
        return
    ray.init(address="local", include_dashboard=False, num_cpus=cores, **_silent())
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def joined_ray(address: str, study: Study) -> Iterator[Any]:
    """A running Ray cluster, joined and left again; your own module goes with the job.

    Args:
        address: As ``ray.init`` takes it: "auto", or host:port of the head.
        study: Whose module is sent.

    Raises:
        InputError: There is no cluster at the address, or it does not let us in.
    """
    if address != "auto" and not ADDRESS.fullmatch(address):  # Ray would begin a cluster of its own, open to all
        raise InputError(f"--address must be host:port of a Ray cluster's head, or auto, got {address!r}")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    ray = _import()
    if ray.is_initialized():
        yield ray
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            ray.init(address=address, runtime_env=_shipment(study, Path(folder)), **_silent())
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"--address: cannot join a Ray cluster at {address!r}: {reason}") from None
        try:
            yield ray
        finally:
            ray.shutdown()


def _import() -> Any:
    for name in OFF:
        os.environ.setdefault(name, "0")
    try:
        import ray  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError:
        raise MissingExtraError("Ray", "ray") from None
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # its advice is about remote clusters
    return ray


def _silent() -> dict[str, Any]:
    return {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


def _shipment(study: Study, folder: Path) -> dict[str, Any]:
    """The runtime environment that takes the study's own module to the other nodes, if it lies beside the study."""
    workload = study.workload
    if workload.is_quadratic or workload.kind in BUILT_IN:
        return {}
    root = workload.kind.partition(":")[0].partition(".")[0]
    beside = workload.folder
    for place in (beside / root, beside / f"{root}.py"):
        if place.is_dir():
            shutil.copytree(place, folder / place.name, ignore=shutil.ignore_patterns("__pycache__"))
            return {"working_dir": str(folder)}
        if place.is_file():
            shutil.copy(place, folder)
            return {"working_dir": str(folder)}
    if find_spec(root) is None:
        raise InputError(f"workload.kind: there is no module {root!r} in {str(beside)!r} or among {sys.prefix!r}'s")
    return {}
