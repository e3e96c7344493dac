"""Values that pickle but cannot be rebuilt: a worker finds out when it rebuilds them that it needs the script."""

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
def test_it_is_run_for_initializers_and_preloads_too(tmp_path, options):
    assert run(tmp_path, script("print(pool.submit(look, 1).result())", options=options)) == ["4"]
    assert runs(tmp_path) == ONCE


def test_without_a_guard_using_the_value_fails(tmp_path):
    body = "print(type(pool.submit(look, 1).exception()).__name__, pool.submit(plain, 2).result())"
    assert run(tmp_path, script(body, guard="if True:")) == ["GlobalNotAvailable 2"]
    assert runs(tmp_path) == ["__main__"]


def test_a_replaced_worker_is_reported_as_an_ordinary_death(tmp_path):
    body = "deaths = []; pool.subscribe(deaths.append); pool.submit(look, 1).result(); pool.shutdown(); "
    body += "print({death.cause.ordinary for death in deaths})"
    assert run(tmp_path, script(body)) == ["{True}"]
