"""Ray on this machine: quiet, listening on loopback only."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from stalewise.errors import MissingExtraError


@contextmanager
def local_ray() -> Iterator[object]:
    """A local Ray, started here unless one is running already, and stopped again if it was started here.

    Ray listens on all interfaces by default on Linux; `RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0` makes it bind loopback
    only (`tests/training` looks at the sockets).
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError:
        raise MissingExtraError("Ray", "ray") from None
    if ray.is_initialized():
        yield ray
        return
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # its advice is about remote clusters
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )
    try:
        yield ray
    finally:
        ray.shutdown()
