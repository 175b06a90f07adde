"""A Ray cluster of several nodes on this machine, as a program: it obeys lines on standard input, and ends with that.

`ray_cluster.py FOLDER CPUS ...` has nodes of so many cpus; `FOLDER grow CPUS NODES` has none, and Ray's own autoscaler,
which adds up to so many. It says where the cluster is, and after `kill NUMBER`, `kill head`, `add CPUS` and
`add CPUS GPUS KIND` that this is done. A node is killed with all of its processes at once, as where a machine loses
its power.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import psutil
from ray._private.services import get_node_ip_address  # type: ignore[import-not-found,unused-ignore]
from ray.autoscaler._private.fake_multi_node.node_provider import (  # type: ignore[import-not-found,unused-ignore]
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
)
from ray.cluster_utils import Cluster  # type: ignore[import-not-found,unused-ignore]

STORE_BYTES = 80 << 20
IDLE_SECONDS = 6.0  # after which Ray's autoscaler removes a node
UNUSED = (
    "cluster_synced_files rsync_exclude rsync_filter initialization_commands setup_commands head_setup_commands "
    "worker_setup_commands head_start_ray_commands worker_start_ray_commands"
).split()
CONFIGURATION = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
    "prestart_worker_first_driver": False,
    "enable_worker_prestart": False,
}


def main() -> None:
    folder, *cpus = sys.argv[1:]
    head: dict[str, Any] = {"num_cpus": 0, "temp_dir": folder, "include_dashboard": False}
    head["_system_config"] = CONFIGURATION
    common: dict[str, Any] = {"object_store_memory": STORE_BYTES}
    if cpus[:1] == ["grow"]:
        head |= growing(Path(folder).parent, int(cpus[1]), int(cpus[2]))
        cpus = []
    cluster = Cluster(initialize_head=True, head_node_args={**head, **common})
    nodes = [cluster.add_node(num_cpus=int(one), **common) for one in cpus]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        match line.split():
            case ["kill", "head"]:
                kill(cluster.head_node)
            case ["kill", number]:
                kill(nodes[int(number)])
            case ["add", count]:
                nodes.append(cluster.add_node(num_cpus=int(count), **common))
            case ["add", count, gpus, kind]:
                kinds = {f"accelerator_type:{kind}": 1}
                nodes.append(cluster.add_node(num_cpus=int(count), num_gpus=int(gpus), resources=kinds, **common))
        print("done", flush=True)
    cluster.shutdown()


def growing(folder: Path, cpus: int, nodes: int) -> dict[str, Any]:
    """How a head is started that has an autoscaler, whose machines are processes here: Ray's own for its tests."""
    os.environ |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": f"{get_node_ip_address()}:{port}",
        "disable_node_updaters": True,  # nothing is installed on the machines
        "disable_launch_config_check": True,
        "use_node_id_as_ip": True,  # they all have one address
    }
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    more = {"resources": {"CPU": cpus, "object_store_memory": STORE_BYTES}, "node_config": {}, "max_workers": nodes}
    configuration: dict[str, Any] = {
        "cluster_name": "grows",
        "max_workers": nodes,
        "idle_timeout_minutes": IDLE_SECONDS / 60,
        "upscaling_speed": 1.0,
        "provider": provider,
        "available_node_types": {FAKE_HEAD_NODE_TYPE: head, "more": more},
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "file_mounts_sync_continuously": False,
        **{name: {} for name in ("auth", "docker", "file_mounts")},  # Ray has no defaults for what is not used
        **{name: [] for name in UNUSED},
    }
    path = folder / "autoscaler.json"
    path.write_text(json.dumps(configuration))
    known = {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID, "RAY_NODE_TYPE_NAME": FAKE_HEAD_NODE_TYPE}
    return {"gcs_server_port": port, "autoscaling_config": str(path), "env_vars": known}


def kill(node: Any) -> None:
    """End the node's processes, and what they have started."""
    own = [one.process.pid for processes in node.all_processes.values() for one in processes]
    doomed = [child for pid in own for child in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]]
    for process in doomed:
        process.suspend()
    for process in doomed:
        process.kill()


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    main()
