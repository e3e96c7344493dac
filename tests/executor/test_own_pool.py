"""The pool of an executor, without the executor: when it is made, and when no more."""

from __future__ import annotations

import pytest

from pidfdpool.executor.own_pool import OwnPool
from pidfdpool.scheduler.policy import Policy
from pidfdpool.template.recipe import Recipe


class Owner:
    """Stands for an executor."""


def test_a_pool_that_a_signal_handler_shuts_down_while_it_is_made_takes_no_task():
    """Guards: it was kept, and ran on although `shutdown` had returned: that had found no pool to end."""

    def make_recipe():  # as if the handler ran in the middle
        assert own.close(cancel=False) is None
        return Recipe(way="exec", preload=(), preload_call=None, initializer=None)

    own, owner = OwnPool(Policy(1), make_recipe), Owner()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        own.open(owner)
    assert own.pool is None
