"""How a coroutine waits for what other threads do. Without a pool."""

from __future__ import annotations

import asyncio

from pidfdpool.executor.wakeup import Wakeup


def test_what_becomes_true_between_the_look_and_the_wait_is_not_missed():
    wakeup, looks = Wakeup(), []

    def ready():
        looks.append(None)
        if len(looks) > 1:
            return True
        wakeup.tell()  # another thread made it true right after this look, and found nobody to wake
        return False

    asyncio.run(asyncio.wait_for(wakeup.wait(ready), 10))
