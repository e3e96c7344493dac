"""A `DaskExecutor` by the address of the cluster, with a client of its own, which is closed with the executor."""

from __future__ import annotations

from typing import Any

from distributed import Client

from pidfdpool.integrations.dask_cluster import options as option_rules
from pidfdpool.integrations.dask_cluster.executor import DaskExecutor

CONNECT_TIMEOUT = 5.0  # seconds


def open_cluster(address: str, *, connect_timeout: float = CONNECT_TIMEOUT, **options: Any) -> DaskExecutor:
    """Connect to the dask cluster with this address, and return an executor on it.

    The executor owns its client: `shutdown` closes it.

    Args:
        address: of the scheduler, such as "tcp://127.0.0.1:8786".
        connect_timeout: seconds after which it counts as unreachable.
        options: as `DaskExecutor` takes them.

    Raises:
        ConnectionError: no dask scheduler could be reached there in time; the message names the address.
        TypeError, ValueError: an argument makes no sense.
    """
    if not isinstance(address, str) or not address:
        raise TypeError(f"address must be that of a dask scheduler, such as 'tcp://127.0.0.1:8786', not {address!r}")
    option_rules.check_names("open_cluster", options, option_rules.OF_EXECUTOR)
    option_rules.check_values(None, options)
    try:
        client = Client(address, timeout=connect_timeout, set_as_default=False)
    except ValueError as error:
        raise ValueError(
            f"{address!r} is not the address of a dask scheduler, such as 'tcp://127.0.0.1:8786': {error}"
        ) from error
    except OSError as error:
        raise ConnectionError(
            f"no dask scheduler could be reached at {address!r} within {connect_timeout:g} s: {error}"
        ) from error
    try:
        executor = DaskExecutor(client, **options)
    except BaseException:
        client.close()
        raise
    executor._owns_client = True
    return executor
