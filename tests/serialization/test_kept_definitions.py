"""How long the host keeps a script's functions and classes, which results may refer to."""

from __future__ import annotations

import pytest

from pidfdpool.serialization import kept_definitions
from tests.conditions import run_python

pytestmark = pytest.mark.timeout(150)


def run(code):
    ran = run_python(code, timeout=120.0, flags=("-W", "ignore"))
    assert (ran.returncode, ran.stderr) == (0, "")


def test_deleted_definitions_are_freed():
    run(
        """
        import gc, weakref
        from pidfdpool import PidfdPoolExecutor

        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * 4096

        def helper(data):
            return len(data) if data else main(data)  # the two of them call each other

        FUNCTION = "def main(data=bytes([{n}]) * 5_000_000): return helper(data)"
        CLASS = "class main:\\n  data = bytes([{n}]) * 5_000_000\\n  def call(self): return helper(self.data)"

        gc.disable()
        with PidfdPoolExecutor(1) as pool:
            for code, collect in ((FUNCTION, False), (CLASS, True)):
                gone = []
                for n in range(9):
                    exec(code.format(n=n))
                    gone.append(weakref.ref(main))
                    future = pool.submit(main if code is FUNCTION else main().call)
                    assert future.result(60) == 5_000_000
                    del main
                    if collect:
                        gc.collect()  # a class refers to itself
                    if n == 1:
                        before = resident()
                future = pool.submit(helper, b"x")
                assert future.result(60) == 1
                del future
                assert [reference() for reference in gone] == [None] * 9
                assert resident() - before < 20_000_000, resident() - before
        """
    )


def test_a_result_may_use_a_definition_that_was_deleted_meanwhile():
    run(
        """
        import os, time, weakref
        from pidfdpool import PidfdPoolExecutor
        from pidfdpool.serialization import kept_definitions as keeping

        SMALL = "class Made: number = {n}"
        LARGE = "class Made: number = {n}; data = bytes([{n}]) * 200_000"

        def make(path):
            while not os.path.exists(path):
                time.sleep(0.01)
            return Made()

        def made_from_afar(_):
            return Made()

        with PidfdPoolExecutor(1) as pool:
            for code in (SMALL, LARGE):
                read, write = os.pipe()
                gate = f"/proc/{os.getpid()}/fd/{write}"
                futures, kinds = [], []
                for n in range(5):
                    exec(code.format(n=n))
                    kinds.append(weakref.ref(Made))
                    futures.append(pool.submit(make, f"/proc/{os.getpid()}/fd/{read}" if n else gate))
                    del Made
                results = [future.result(60) for future in futures]
                assert [result.number for result in results] == list(range(5))
                assert [type(result) for result in results] == [kind() for kind in kinds]
                os.close(read), os.close(write)
            # Through a map, whose later calls are sent when the class is gone.
            exec(LARGE.format(n=7))
            kind = weakref.ref(Made)
            results = pool.map(made_from_afar, range(300))
            del Made
            assert {type(result) for result in results} == {kind()}
            del results, futures
            assert len(keeping.large) <= 6
        """
    )


def test_definitions_kept_without_a_task_are_bounded():
    run(
        """
        from pidfdpool import PidfdPoolExecutor
        from pidfdpool.serialization import kept_definitions as keeping

        with PidfdPoolExecutor(1) as pool:
            for n in range(30):
                exec(f"def same(data='{n}'): return data")
                exec(f"def other{n}(data={'x' * 60_000!r}): return len(data)")
                assert pool.submit(same).result(60) == str(n)
                assert pool.submit(globals()[f"other{n}"]).result(60) == 60_000
        kept = list(keeping._small.values())
        assert 3 <= len([1 for key, _, _ in kept if key[1] == "same"]) <= 8
        assert 180_000 < sum(size for _, _, size in kept) <= 1 << 18
        assert kept[-1][1] is other29 or kept[-2][1] is other29
        """
    )


def test_of_the_definitions_under_one_name_the_last_ones_are_kept(monkeypatch):
    monkeypatch.setattr(kept_definitions, "_small", {})
    definitions = [type("Again", (), {}) for _ in range(kept_definitions._MAX_PER_NAME + 2)]
    for number, definition in enumerate(definitions):
        kept_definitions.record(number, ("__main__", "Again"), definition, 10, {})
    kept_definitions.record(100, ("__main__", "Other"), int, 10, {})
    assert [*kept_definitions._small] == [*range(2, len(definitions)), 100]


def test_small_definitions_make_room_for_later_ones_and_only_as_many_as_have_to(monkeypatch):
    monkeypatch.setattr(kept_definitions, "_small", {})
    most = kept_definitions._MAX_BYTES // 10
    for number in range(14):
        kept_definitions.record(number, ("__main__", f"name{number}"), int, most, {})
    assert [*kept_definitions._small] == list(range(4, 14))


def test_a_task_holds_large_definitions_that_can_still_be_sent(monkeypatch):
    monkeypatch.setattr(kept_definitions, "large", {})
    first, again = type("Large", (), {}), type("Large", (), {})
    names = {"Large": again}
    for number, definition in enumerate((first, again)):
        kept_definitions.record(number, ("__main__", "Large"), definition, kept_definitions.LARGE, names)
    assert kept_definitions.definitions_for_task() == [again]
    del names["Large"]
    assert kept_definitions.definitions_for_task() == []
