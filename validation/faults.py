"""Faults of a real run, each many times: nothing is lost that is not counted, nothing is applied twice.

* ``worker``: a worker process is killed (SIGKILL) while it computes;
* ``hang``: a worker process is stopped (SIGSTOP) and never answers again; patience 2 s;
* ``node``: a node of a Ray cluster of two is killed with the workers on it;
* ``driver``: the driver is killed (SIGKILL) at a random moment, then ``--resume``;
* ``disk``: the disk fills up while checkpoints are written, then there is room again;
* ``corrupt``: a byte of the last checkpoint is changed, then ``--resume``; then both checkpoints', then ``--resume``.

After every run: computed = applied + dropped + cancelled + unsent + lost + in flight; the trace has that many rows; its
applied rows are the updates 0, 1, 2, ..., each once, from as many different gradients; the loss has fallen. ``disk``
needs the right to mount a small file system and is left out without it. Run by hand: ``python validation/faults.py
--repeats 20``, about 40 minutes.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from stalewise.errors import InputError
from stalewise.hands.cluster import local_ray
from stalewise.study import make_study
from stalewise.training import train
from stalewise.training.checkpoint import NAME, PREVIOUS

STUDY = {
    "workload": {"kind": "digits-mlp"},
    "cluster": {"workers": 4, "compute": "gamma(0.04, 4)"},
    "schedule": {"policy": "async", "learning_rate": 0.03},
    "target": {"loss": 1e-6},
}


def study():
    return make_study(STUDY)


def rows_of(path):
    lines = Path(path).read_text().splitlines()
    names = lines[0].split(",")
    return [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]


def check(told, folder):
    """What a run must have kept, whatever happened to it."""
    tally = told["gradients"]
    fates = ("applied", "dropped", "cancelled", "unsent", "lost", "in_flight")
    assert tally["computed"] == sum(tally[name] for name in fates), tally
    rows = rows_of(folder / "trace.csv")
    assert len(rows) == tally["computed"], (len(rows), tally)
    applied = [int(row["applied_version"]) for row in rows if row["applied_version"]]
    assert applied == list(range(int(told["updates"][-1]))), "updates are not 0, 1, 2, ..."
    assert len({(row["worker"], row["start"]) for row in rows}) == len(rows), "a gradient stands twice"
    assert told["loss"][-1] < 0.8 * told["loss"][0], told["loss"][-1]
    return f"{int(told['updates'][-1])} updates, {tally['lost']:.0f} lost"


def host_processes():
    """Ray workers of this machine that host gradients."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"ray::Host"):
                found.append(int(entry.name))
    return found


def signal_one(which, after):
    """Send a signal to a random worker process once it is at work."""

    def act():
        time.sleep(after)
        os.kill(random.choice(host_processes()), which)

    threading.Thread(target=act, daemon=True).start()


class Started:
    """Progress that acts once, when the run is under way."""

    def __init__(self, act):
        self._act = act

    def __call__(self, share, _message):
        if share > 0 and self._act is not None:
            act, self._act = self._act, None
            act()


def worker(folder, seed):
    act = Started(lambda: signal_one(signal.SIGKILL, random.uniform(0.0, 0.5)))
    with local_ray():
        told = train(study(), seed=seed, folder=folder, time_limit=10.0, progress=act)
    assert told.gradients.lost >= 1
    return check(told.model_dump(), folder)


def hang(folder, seed):
    act = Started(lambda: signal_one(signal.SIGSTOP, random.uniform(0.0, 0.5)))
    with local_ray():
        told = train(study(), seed=seed, folder=folder, time_limit=12.0, progress=act, patience=2.0)
    assert told.gradients.lost >= 1
    return check(told.model_dump(), folder)


def node(folder, seed):
    os.environ["RAY_AUTH_MODE"] = "token"  # before Ray is there
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        other = cluster.add_node(num_cpus=2)
        act = Started(lambda: threading.Timer(random.uniform(0.0, 1.0), lambda: cluster.remove_node(other)).start())
        told = train(
            study(), seed=seed, folder=folder, time_limit=15.0, progress=act, address=cluster.address, compute="real"
        )
    finally:
        cluster.shutdown()
    assert told.gradients.lost >= 1
    return check(told.model_dump(), folder)


def command(folder, *more):
    toml = folder / "study.toml"
    toml.write_text(study().to_toml())
    return [str(Path(sys.executable).with_name("stalewise")), "train", str(toml), "--out", str(folder), "--json", *more]


def driver(folder, seed):
    options = ("--seed", str(seed), "--checkpoint-every", "0.5")
    first = subprocess.Popen(command(folder, "--time-limit", "60", *options), stdout=subprocess.DEVNULL)
    partial = folder / "trace.csv.partial"
    while not (folder / NAME).exists() and first.poll() is None:
        time.sleep(0.05)
    time.sleep(random.uniform(0.0, 3.0))
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = len(rows_of_partial(partial))
    length = json.loads(state_of(folder))["elapsed"] + 4.0
    done = subprocess.run(
        command(folder, "--resume", "--time-limit", str(length), *options), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return f"killed after {before} rows; {check(told, folder)}"


def rows_of_partial(path):
    return path.read_text().splitlines()[1:]


def state_of(folder):
    from safetensors import safe_open

    with safe_open(str(folder / NAME), framework="np") as file:
        return file.metadata()["state"]


@contextlib.contextmanager
def small_disk():
    """A file system of 1 MB, mounted; an error if that may not be."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True, capture_output=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def disk(folder, seed):
    del folder
    with small_disk() as small, tempfile.TemporaryDirectory() as elsewhere:
        filler, warnings = small / "filler", []

        def fill():
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            threading.Timer(3.0, filler.unlink).start()

        with local_ray():
            told = train(
                study(), seed=seed, folder=small, trace_path=Path(elsewhere) / "trace.csv", time_limit=8.0,
                checkpoint_every=0.5, progress=Started(lambda: threading.Timer(random.uniform(0, 1), fill).start()),
                warn=warnings.append,
            )  # fmt: skip
            assert any("could not be written (No space left on device)" in warning for warning in warnings), warnings
            told = train(
                study(), seed=seed, folder=small, trace_path=Path(elsewhere) / "trace.csv",
                time_limit=told.time[-1] + 2.0, resume=True,
            )  # fmt: skip
        return check(told.model_dump(), Path(elsewhere))


def damage(path):
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(bytes(content))


def corrupt(folder, seed):
    with local_ray():
        train(study(), seed=seed, folder=folder, time_limit=3.0, checkpoint_every=0.5)
        damage(folder / NAME)
        told = train(study(), seed=seed, folder=folder, time_limit=5.0, resume=True)
        assert any("is damaged" in note and PREVIOUS in note for note in told.notes), told.notes
        said = check(told.model_dump(), folder)
        damage(folder / NAME)
        damage(folder / PREVIOUS)
        try:
            train(study(), seed=seed, folder=folder, time_limit=7.0, resume=True)
        except InputError as error:
            assert "is damaged" in str(error) and "\n" not in str(error)
            return f"{said}; then refused: {error}"
    raise AssertionError("two damaged checkpoints were not refused")


FAULTS = {"worker": worker, "hang": hang, "node": node, "driver": driver, "disk": disk, "corrupt": corrupt}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if len(options.faults) > 1:  # each in a process of its own: Ray reads its settings once
        common = [sys.executable, __file__, "--repeats", str(options.repeats), "--seed", str(options.seed), "--faults"]
        return max(subprocess.run([*common, name], check=False).returncode for name in options.faults)
    failed = 0
    for name in options.faults:
        for repeat in range(options.repeats):
            random.seed(hash((options.seed, repeat)))
            with tempfile.TemporaryDirectory() as folder:
                try:
                    said = FAULTS[name](Path(folder), repeat)
                except subprocess.CalledProcessError as error:
                    print(f"{name}: left out: {error.stderr.decode().strip()}", flush=True)
                    break
                except Exception as error:
                    failed += 1
                    said = f"FAILED: {type(error).__name__}: {error}"
            print(f"{name} {repeat + 1}/{options.repeats}: {said}", flush=True)
    print(f"{options.faults[0]}: {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    np.seterr(all="raise")
    sys.exit(main())
