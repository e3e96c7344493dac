"""No module of this room loads what only type checkers need: each start of a process would take longer."""

from __future__ import annotations

import pytest

import pidfdpool.pidfd
from tests.process.for_type_checkers import loaded_in_vain, modules_of


@pytest.mark.parametrize("name", modules_of(pidfdpool.pidfd))
def test_what_only_type_checkers_need_is_not_loaded(name):
    assert loaded_in_vain(name) == set()
