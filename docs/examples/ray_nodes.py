"""A Ray cluster of some nodes on this machine, bound to loopback, to try things out: until Ctrl-C, or for an hour.

    .venv/bin/python -P docs/examples/ray_nodes.py 2

Each node has two CPUs and a resource of its own name (node_a, node_b ...). Prints the address of its head, and each
node's process: kill that, and the node is lost. A cluster of several machines is started by ``ray start``.
"""

import os
import signal
import sys
from pathlib import Path

os.environ.update(  # Ray reads it when it is imported
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",  # or it takes the machine's outer address for a loopback one
    RAY_USAGE_STATS_ENABLED="0",
    RAY_prestart_worker_first_driver="0",
    PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
)

from ray.cluster_utils import Cluster

COMMON = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}

for which in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
    signal.signal(which, lambda number, frame: sys.exit())
signal.alarm(3600)
cluster = Cluster()
try:
    for letter in "abcdefgh"[: int(sys.argv[1])]:
        node = cluster.add_node(resources={f"node_{letter}": 100}, **COMMON)
        [raylet] = node.all_processes["raylet"]
        print(f"node_{letter} {raylet.process.pid}", flush=True)
    print(cluster.address, flush=True)
    signal.pause()
finally:
    cluster.shutdown()
