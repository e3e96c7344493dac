"""What type checkers say of a program that uses the other executors. Checked by them, never run."""

from __future__ import annotations

import concurrent.futures
from typing import assert_type

import pidfdpool
from pidfdpool import PidfdPoolExecutor, SerialExecutor, get_executor, get_shared_executor


def double(number: int) -> int:
    return 2 * number


async def use() -> None:
    with SerialExecutor(2, timeout=3, check_pickling=True) as serial:
        assert_type(serial.submit(double, 1).result(), int)
        assert_type(await serial.run(double, 1), int)
        assert_type(serial.options(retries=2).submit(double, 1).result(), int)
        assert_type(serial.submit(double, 1).attempt, int)
        assert_type(serial.stats(), pidfdpool.Stats)
        serial.submit(double, "1")  # type: ignore[arg-type]
    assert_type(get_executor("serial"), SerialExecutor)
    assert_type(get_executor("pidfdpool", 3, timeout=2), PidfdPoolExecutor)
    assert_type(get_executor(), concurrent.futures.Executor)
    get_executor("threads")  # type: ignore[call-overload]
    shared = get_shared_executor(3, timeout=2, nested="share")
    assert_type(shared.submit(double, 1).result(), int)
    assert_type(await shared.run(double, 1), int)
    get_shared_executor(nested="threads")  # type: ignore[arg-type]
