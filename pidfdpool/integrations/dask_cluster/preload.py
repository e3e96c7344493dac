"""`dask worker --preload pidfdpool.dask`: the pool of `PidfdPoolPlugin`, by command line.

dask parses the arguments twice: on the command line, where a mistake ends the command at once, and in each worker
process. Both functions run on the event loop of the dask worker.
"""

from __future__ import annotations

import ast
from typing import Any

import click

from pidfdpool.integrations.dask_cluster.plugin import PidfdPoolPlugin


def _checked(_context: Any, _parameter: Any, given: tuple[str, ...]) -> dict[str, Any]:
    """Return the options, each NAME=VALUE, as a dictionary."""
    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE, such as timeout=60")
        try:
            options[name.replace("-", "_")] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name.replace("-", "_")] = value
    try:
        PidfdPoolPlugin(**options)
    except (TypeError, ValueError) as error:
        raise click.BadParameter(str(error)) from error
    return options


@click.command()
@click.option("--pool-workers", type=click.IntRange(min=1), help="workers of each pool [default: the threads]")
@click.option("--pool-executor", default="pidfdpool", help='name of the executor; "default": for all tasks')
@click.option("--pool-option", multiple=True, callback=_checked, help="NAME=VALUE, an option of the pool; repeatable")
async def dask_setup(worker: Any, pool_workers: int | None, pool_executor: str, pool_option: dict[str, Any]) -> None:
    """Give a dask worker its pool."""
    plugin = PidfdPoolPlugin(pool_workers, executor=pool_executor, **pool_option)
    if not hasattr(worker, "plugin_add"):
        plugin.setup(worker)  # raises the error that says what it is for
    await worker.plugin_add(plugin, plugin.name)


async def dask_teardown(worker: Any) -> None:
    """Take the pools away. A dask worker that closes has done so."""
    plugins = getattr(worker, "plugins", {})
    for name in [name for name, plugin in plugins.items() if isinstance(plugin, PidfdPoolPlugin)]:
        await worker.plugin_remove(name)
