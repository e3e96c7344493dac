"""A `multiprocessing.Pool` on the engine of this package, for code that was written for the standard library's.

Change `from multiprocessing import Pool` to `from pidfdpool.multiprocessing import Pool`. Or leave the program as it
is, and call `install()` first, or start it by `python -m pidfdpool.multiprocessing SCRIPT`. What differs is told in
docs/integrations.md.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    from pidfdpool import PidfdPoolExecutor  # noqa: F401  it raises ImportError, and says what there is instead

from multiprocessing import TimeoutError  # noqa: A004

from pidfdpool.integrations.process_pool.contexts import get_context
from pidfdpool.integrations.process_pool.errors import MaybeEncodingError
from pidfdpool.integrations.process_pool.installing import install, uninstall
from pidfdpool.integrations.process_pool.iterators import IMapIterator, IMapUnorderedIterator
from pidfdpool.integrations.process_pool.pool import Pool, PoolView
from pidfdpool.integrations.process_pool.results import AsyncResult, MapResult

__all__ = [
    "AsyncResult",
    "IMapIterator",
    "IMapUnorderedIterator",
    "MapResult",
    "MaybeEncodingError",
    "Pool",
    "PoolView",
    "TimeoutError",
    "get_context",
    "install",
    "uninstall",
]

if __name__ == "__main__":
    from pidfdpool.integrations.process_pool.script import main

    sys.exit(main(sys.argv[1:]))
