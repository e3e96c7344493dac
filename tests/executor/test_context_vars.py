"""The values of context variables travel with a task, whichever way it is submitted, and nothing else does."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from pidfdpool import CallNotSendable, PidfdPoolExecutor, WorkerCrashed
from tests import calls
from tests.conditions import run_python
from tests.executor.context_variables import REQUEST, USER, Holder, change, fail, see

SET = ("r-1", "nobody", "none")
UNSET = ("none", "nobody", "none")


@pytest.fixture(autouse=True)
def request_is_set():
    token = REQUEST.set("r-1")
    yield
    REQUEST.reset(token)


@pytest.fixture(params=["pool", "options"])
def submitter(request, way):
    """Give an executor, or a view of one, with which REQUEST travels."""
    chosen = {"context_vars": [REQUEST, USER]}
    with PidfdPoolExecutor(2, mp_context=way, **(chosen if request.param == "pool" else {})) as pool:
        yield pool if request.param == "pool" else pool.options(**chosen)


@pytest.mark.parametrize(
    "keywords", [{}, {"chunksize": 2}, {"buffersize": 2}, {"buffersize": 200}, {"buffersize": 4, "chunksize": 2}]
)
def test_in_every_form_of_map_the_values_are_those_of_its_beginning(submitter, keywords):
    for begin in (submitter.map, submitter.map_unordered):
        results = begin(see, range(30), **keywords)
        token = USER.set("somebody else")
        try:
            assert list(results) == [SET] * 30
        finally:
            USER.reset(token)


def test_submit_and_the_calls_of_asyncio(submitter):
    async def main():
        REQUEST.set("r-2")
        got = [await submitter.run(see)]
        return got + [each async for each in submitter.amap(see, range(3))]

    assert submitter.submit(see).result() == SET
    assert asyncio.run(main()) == [("r-2", "nobody", "none")] * 4
    assert submitter.submit(see, 1).result() == SET


def test_each_call_has_a_context_of_its_own(submitter):
    assert list(submitter.map(change, "abcd")) == ["r-1"] * 4
    assert submitter.submit(change, "x").result() == "r-1"
    assert submitter.submit(see).result() == SET


def test_what_a_call_sets_is_forgotten_also_of_variables_that_do_not_travel():
    token = USER.set("me")
    try:
        with PidfdPoolExecutor(1, mp_context="spawn", context_vars=[USER]) as pool:
            assert pool.submit(change, "x").result() == "none"
            assert list(pool.map(change, "yz")) == ["none", "none"]
            assert pool.submit(see).result() == ("none", "me", "none")
    finally:
        USER.reset(token)


def test_without_the_option_nothing_travels(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        expected = SET if way == "fork" else UNSET  # a fork has the context of the thread that forked
        assert pool.submit(see).result() == expected
        assert pool.options(context_vars=()).submit(see).result() == expected


def test_what_is_not_set_keeps_its_default_and_true_takes_all_that_are_set(way):
    with PidfdPoolExecutor(1, mp_context=way, context_vars=True) as pool:
        assert pool.submit(see).result() == SET
        context = contextvars.copy_context()
        context.run(Holder.INNER.set, "deep")
        context.run(USER.set, {"name": "me"})
        assert context.run(lambda: pool.submit(see)).result() == ("r-1", {"name": "me"}, "deep")


def test_the_value_is_that_of_the_submit_and_of_its_thread(submitter):
    value = ["changed later"]
    REQUEST.set(value)
    future = submitter.submit(see)
    value.append("too late")
    assert future.result()[0] == ["changed later"]
    seen = []
    thread = threading.Thread(target=lambda: seen.append(submitter.submit(change, "y").result()))
    contextvars.Context().run(thread.start)
    thread.join()
    # Nothing is set in a new thread. With "fork" a worker has what was set where the host was forked.
    assert seen[0] == "none" or seen[0] == ["changed later"]


def test_a_task_is_named_after_its_function_and_fails_as_without(submitter):
    with pytest.raises(ValueError, match="r-1"):
        submitter.submit(fail).result()
    with pytest.raises(WorkerCrashed, match=r"tests\.calls\.die"):
        submitter.submit(calls.die).result()


def test_a_retry_has_the_values_as_well(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way, context_vars=[REQUEST], retries=2, retry_on=ValueError) as pool:
        with pytest.raises(ValueError, match="r-1"):
            pool.options(retry_backoff=0).submit(fail).result()


class Stubborn:
    """Its own code says why it does not travel."""

    def __reduce__(self):
        raise RuntimeError("not this one")


async def listed(items):
    return [item async for item in items]


@pytest.mark.parametrize("kind", [threading.Lock, Stubborn])
@pytest.mark.parametrize("form", ["submit", "map", "map in chunks", "map_unordered", "run", "amap", "stream"])
def test_a_value_that_does_not_pickle_is_named(submitter, form, kind):
    REQUEST.set(kind())
    chunksize = 2 if form == "map in chunks" else None
    told = r"the value <.*> of the context variable .*context_variables\.REQUEST \(.*\) cannot be sent to a worker: "
    forms = {
        "submit": lambda: submitter.submit(see).result(),
        "run": lambda: asyncio.run(submitter.run(see)),
        "map": lambda: list(submitter.map(see, range(5), chunksize=chunksize)),
        "map_unordered": lambda: list(submitter.map_unordered(see, range(5))),
        "amap": lambda: asyncio.run(listed(submitter.amap(see, range(5)))),
        "stream": lambda: list(submitter.stream(range, 5)),
    }
    with pytest.raises(CallNotSendable, match=told):
        forms[form.partition(" ")[0]]()
    REQUEST.set("r-1")
    assert submitter.submit(see).result() == SET


def test_a_variable_that_no_module_has_is_named():
    nowhere = contextvars.ContextVar("nowhere")
    nowhere.set(1)
    with PidfdPoolExecutor(1, context_vars=[nowhere]) as pool:
        with pytest.raises(CallNotSendable, match="the context variable 'nowhere' cannot be sent"):
            pool.submit(see).result()
        assert pool.options(context_vars=True).submit(see).result() == SET


@pytest.mark.parametrize("value", ["REQUEST", [1], 5, REQUEST, [REQUEST, "x"], None])
def test_what_is_no_context_variable_is_refused(value):
    with pytest.raises(TypeError, match="^context_vars must be True, False, or a list of context variables, not "):
        PidfdPoolExecutor(1, context_vars=value)


def test_callbacks_see_the_context_of_the_submit(submitter):
    seen, done = [], threading.Event()
    future = submitter.submit(calls.sleep, 0.05, 1)
    REQUEST.set("later")
    future.add_done_callback(lambda _: seen.append((REQUEST.get(), REQUEST.set("in a callback")) and REQUEST.get()))
    future.add_done_callback(lambda _: (seen.append(REQUEST.get()), done.set()))
    assert done.wait(30)
    assert seen == ["in a callback", "r-1"]
    assert REQUEST.get() == "later"


def test_variables_of_a_script_travel(tmp_path, way):
    script = tmp_path / "script.py"
    script.write_text(
        f"""
from contextvars import ContextVar
from pidfdpool import PidfdPoolExecutor

token = ContextVar("another name", default="none")

def work(*_):
    return token.get()

if __name__ == "__main__":
    with PidfdPoolExecutor(1, mp_context={way!r}, context_vars=[token]) as pool:
        token.set("t-1")
        print(pool.submit(work).result(), set(pool.map(work, range(5))))
"""
    )
    done = run_python("import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')", str(script))
    assert (done.stdout, done.stderr) == ("t-1 {'t-1'}\n", "")
