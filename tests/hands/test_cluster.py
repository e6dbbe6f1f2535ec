"""A Ray cluster of two nodes on this machine, joined with token authentication; a node dies. In a process of its own:
Ray reads its settings once."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import my_task
from stalewise.errors import InputError
from stalewise.hands.cluster import _shipment
from stalewise.study import make_study

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.ray,
]
HERE = Path(my_task.__file__).parent

SCRIPT = """
import json, os, sys, threading
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = "0123456789abcdef0123456789abcdef"
from ray.cluster_utils import Cluster
from stalewise.study import load_study
from stalewise.training import engine, train

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
other = cluster.add_node(num_cpus=2)
seen = {}

class Looking(engine.Fleet):
    def gather(self):
        present = super().gather()
        seen["remote"] = sum(seat.remote for seat in self.hosts.seats)
        seen["local"] = sum(seat.serving and not seat.remote for seat in self.hosts.seats)
        threading.Timer(3.0, lambda: cluster.remove_node(other)).start()
        return present

engine.Fleet = Looking
told = train(load_study(sys.argv[1]), address=cluster.address, compute="real", folder=sys.argv[2], time_limit=12.0)
cluster.shutdown()
print(json.dumps({**seen, **told.gradients.model_dump(), "updates": told.updates[-1], "loss": told.loss}))
"""


def own(path):
    """The task of tests/my_task.py, four workers."""
    return make_study(
        {
            "workload": {"kind": "my_task:regression", "path": str(path)},
            "cluster": {"workers": 4, "compute": "constant(0.01)"},
            "schedule": {"policy": "async", "learning_rate": 0.02},
            "target": {"loss": 1e-9},
        }
    )


def test_a_cluster_trains_your_module_and_survives_a_node(tmp_path):
    """Workers on both nodes, over shared memory and over Ray; the module went with the job; when a node dies its
    gradients are lost, counted, and the others go on."""
    study = tmp_path / "study.toml"
    study.write_text(own(HERE).to_toml())
    command = [sys.executable, "-c", SCRIPT, str(study), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["local"] == 2 and told["remote"] == 2
    assert told["lost"] >= 1
    fates = ("applied", "dropped", "cancelled", "unsent", "lost", "in_flight")
    assert told["computed"] == sum(told[name] for name in fates)
    assert told["updates"] == told["applied"] > 100
    assert told["loss"][-1] < told["loss"][0]


def test_what_is_sent_with_a_job(tmp_path):
    """The module beside the study, alone; nothing for built-in workloads; what is nowhere is refused."""
    environment = _shipment(own(HERE), tmp_path)
    assert environment == {"working_dir": str(tmp_path)}
    assert [path.name for path in tmp_path.iterdir()] == ["my_task.py"]
    built_in = own(HERE).as_dict() | {"workload": {"kind": "digits-mlp"}}
    assert _shipment(make_study(built_in), tmp_path) == {}
    with pytest.raises(InputError, match="there is no module 'nowhere'"):
        _shipment(make_study(own(HERE).as_dict() | {"workload": {"kind": "nowhere:f"}}), tmp_path)
