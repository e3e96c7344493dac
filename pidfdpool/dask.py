"""Dask, when one machine is not enough: calls on a cluster, and pools in its workers.

    from distributed import Client
    from pidfdpool.dask import DaskExecutor

    with Client("tcp://scheduler:8786") as client, DaskExecutor(client, timeout=60) as executor:
        ...

docs/integrations.md tells what it does, and what it takes. `dask worker --preload pidfdpool.dask` uses this module,
too, by `dask_setup` and `dask_teardown`.
"""

from __future__ import annotations

import re

try:
    import distributed

    if tuple(map(int, re.findall(r"\d+", distributed.__version__)[:3])) < (2025, 1, 0):
        raise ImportError(f"distributed {distributed.__version__} was found")
except ImportError as error:
    raise ImportError(
        f"pidfdpool.dask needs distributed 2025.1.0 or newer ({error}): pip install 'pidfdpool[dask]'",
        name="distributed",
    ) from error

from pidfdpool.integrations.dask_cluster.cluster import open_cluster
from pidfdpool.integrations.dask_cluster.executor import ClusterOptions, DaskExecutor
from pidfdpool.integrations.dask_cluster.futures import ClusterFuture
from pidfdpool.integrations.dask_cluster.plugin import PidfdPoolPlugin
from pidfdpool.integrations.dask_cluster.preload import dask_setup, dask_teardown

__all__ = [
    "ClusterFuture",
    "ClusterOptions",
    "DaskExecutor",
    "PidfdPoolPlugin",
    "dask_setup",
    "dask_teardown",
    "open_cluster",
]
