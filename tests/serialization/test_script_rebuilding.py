"""A script is run again for values that pickle and do not come back: that turns out only when they are rebuilt."""

from __future__ import annotations

import pytest

from tests.scripting import run, runs

ONCE = ["__main__", "__mp_main__"]
STUBBORN = """
class Stubborn:
    def __init__(self, size):
        self.size = size
    def __getstate__(self):
        return {"size": self.size}
    def __setstate__(self, state):
        raise TypeError("it cannot be rebuilt")
table = Stubborn(3)
def look(number):
    return table.size + number
def plain(number):
    return number
"""
USES = {
    "submit": "print(pool.submit(look, 1).result())",
    "after others": "print([pool.submit(plain, n).result() for n in range(4)][:0] or pool.submit(look, 1).result())",
    "map": "print(list(pool.map(look, [1]))[0])",
    "many at once": "found = [pool.submit(look, n) for n in range(60)]; "
    "print(1 + sum({future.result() - n for n, future in enumerate(found)}))",
}


def script(body: str, *, guard: str = 'if __name__ == "__main__":', options: str = "2") -> str:
    return f"{STUBBORN}\n{guard}\n    with PidfdPoolExecutor({options}) as pool:\n        {body}\n"


@pytest.mark.parametrize("use", USES.values(), ids=list(USES))
def test_the_script_makes_it_once(tmp_path, use):
    assert run(tmp_path, script(use)) == ["4"]
    assert runs(tmp_path) == ONCE


@pytest.mark.parametrize("options", ["1, initializer=look, initargs=(1,)", "1, preload=lambda: look(1)"])
def test_for_what_comes_before_the_first_task_as_well(tmp_path, options):
    assert run(tmp_path, script("print(pool.submit(look, 1).result())", options=options)) == ["4"]
    assert runs(tmp_path) == ONCE


def test_where_the_script_cannot_be_run_again_the_use_of_it_fails(tmp_path):
    body = "print(type(pool.submit(look, 1).exception()).__name__, pool.submit(plain, 2).result())"
    assert run(tmp_path, script(body, guard="if True:")) == ["GlobalNotAvailable 2"]
    assert runs(tmp_path) == ["__main__"]


def test_no_death_is_told_but_an_ordinary_one(tmp_path):
    body = "deaths = []; pool.subscribe(deaths.append); pool.submit(look, 1).result(); pool.shutdown(); "
    body += "print({death.cause.ordinary for death in deaths})"
    assert run(tmp_path, script(body)) == ["{True}"]
