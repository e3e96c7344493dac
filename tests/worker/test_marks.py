"""The mark of a worker: there while tasks run whose descendants are to end with it, and gone during others."""

from __future__ import annotations

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.worker import mark
from tests import calls


def mark_of_this_process():
    return mark.of(0)


@pytest.mark.parametrize("end", [calls.raise_it, None], ids=["a failure", "a result"])
def test_the_mark_is_gone_during_a_task_that_spares_its_descendants_and_there_again_after_it(end):
    with PidfdPoolExecutor(1) as pool:
        of_worker = pool.submit(mark_of_this_process).result(20)
        assert of_worker is not None
        sparing = pool.options(kill_descendants=False)
        assert sparing.submit(mark_of_this_process).result(20) is None
        if end is not None:
            assert isinstance(sparing.submit(end, LookupError()).exception(20), LookupError)
        assert pool.submit(mark_of_this_process).result(20) == of_worker
