"""What the host has changed since its script ran, as seen in workers that have run the script again."""

from __future__ import annotations

from tests.scripting import run


def test_the_hosts_values_win(tmp_path):
    assert run(tmp_path, """
        LOCK = threading.Lock()
        number, items, table = 1, [1], {"a": 1}
        def answer(): return 1
        class C:
            def get(self): return 1
        def look():
            with LOCK:
                return number, items, table, answer(), C().get()
        if __name__ == "__main__":
            with PidfdPoolExecutor(1) as pool:
                print(pool.submit(look).result())
                number = 2; items.append(2); table["b"] = 2
                def answer(): return 2
                class C:
                    def get(self): return 2
                print(pool.submit(look).result())
                number = 3; items.append(3); del table["a"]
                print(pool.submit(look).result())
        """) == [
        "(1, [1], {'a': 1}, 1, 1)",
        "(2, [1, 2], {'a': 1, 'b': 2}, 2, 2)",
        "(3, [1, 2, 3], {'b': 2}, 2, 2)",
    ]  # fmt: skip


def test_plain_data_of_functions_and_classes_is_the_hosts(tmp_path):
    """Guards: the script's own class stayed as it was made, whatever the host had assigned to its attributes."""
    assert run(tmp_path, """
        LOCK = threading.Lock()
        class C:
            number, items, lock = 1, [1], LOCK
            itself = []
            itself.append(itself)
        class D:
            number, items = 1, [1]
        def look(a=1, *, k=1):
            with LOCK:
                return C.number, C.items, D.number, D.items, D.added, a, k, look.tag, C.lock is LOCK
        look.tag = 1
        if __name__ == "__main__":
            for kind in (C, D):
                kind.number = 2; kind.items.append(2); kind.added = 2
            look.__defaults__, look.__kwdefaults__, look.tag = (2,), {"k": 2}, 2
            with PidfdPoolExecutor(1) as pool:
                print(pool.submit(look).result())
                D.number = look.tag = 3
                print(pool.submit(look).result())
        """) == [
        "(1, [1], 2, [1, 2], 2, 2, 2, 2, True)",  # C holds a lock, so it is the script's as a whole
        "(1, [1], 3, [1, 2], 2, 2, 2, 3, True)",
    ]  # fmt: skip


def test_shared_objects_stay_shared(tmp_path):
    """Guards: the class was the script's and the dictionary in it the host's, so they were two dictionaries."""
    assert run(tmp_path, """
        LOCK = threading.Lock()
        CACHE = {}
        class D:
            cache = CACHE
        def get(cache=CACHE): return cache
        def look():
            with LOCK:
                return D.cache is CACHE is get(), CACHE
        if __name__ == "__main__":
            with PidfdPoolExecutor(1) as pool:
                print(pool.submit(look).result())
                CACHE["a"] = 1
                print(pool.submit(look).result())
        """) == ["(True, {})", "(True, {'a': 1})"]  # fmt: skip


def test_a_class_has_the_changed_base(tmp_path):
    """Guards: the base was the host's, and the class had the script's base."""
    assert run(tmp_path, """
        LOCK = threading.Lock()
        class A:
            class In: pass
            def get(self): return 1
        class B(A):
            own = 1
        class N(A.In):
            pass
        def look():
            with LOCK:
                return issubclass(B, A), B().get(), issubclass(N, A.In)
        if __name__ == "__main__":
            with PidfdPoolExecutor(1) as pool:
                print(pool.submit(look).result())
                A.get = lambda self: 2
                print(pool.submit(look).result())
                print(type(pool.submit(B).result()) is B)
        """) == ["(True, 1, True)", "(True, 2, True)", "True"]  # fmt: skip


def test_a_slotted_dataclass_with_a_base(tmp_path):
    """Guards: inherited attributes do not travel, so one of the two classes was the host's and one the script's."""
    assert run(tmp_path, """
        import dataclasses
        LOCK = threading.Lock()
        @dataclasses.dataclass(slots=True)
        class Base:
            x: int = 0
        @dataclasses.dataclass(slots=True)
        class Row(Base):
            y: int = 0
            again = Base.__eq__
        def look(row):
            with LOCK:
                return type(row) is Row, Row.__mro__[1] is Base, row == Row(1, 2), Row(1, 2)
        if __name__ == "__main__":
            with PidfdPoolExecutor(1) as pool:
                print(pool.submit(look, Row(1, 2)).result())
        """) == ["(True, True, True, Row(x=1, y=2))"]  # fmt: skip
