"""A Ray cluster of several nodes on this machine, as a program: it obeys lines on standard input, and ends with that.

It says where the cluster is, and after `kill NUMBER`, `add CPUS` and `kill head` that this is done. A node is killed
with all of its processes at once, as where a machine loses its power.
"""

import os
import sys
from typing import Any

import psutil
from ray.cluster_utils import Cluster  # type: ignore[import-not-found,unused-ignore]

STORE_BYTES = 80 << 20
CONFIGURATION = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
    "prestart_worker_first_driver": False,
    "enable_worker_prestart": False,
}


def main() -> None:
    folder, *cpus = sys.argv[1:]
    head = {"num_cpus": 0, "temp_dir": folder, "include_dashboard": False, "_system_config": CONFIGURATION}
    common: dict[str, Any] = {"object_store_memory": STORE_BYTES}
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
        print("done", flush=True)
    cluster.shutdown()


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
