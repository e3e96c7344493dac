"""What a template and its workers are told at their start arrives as it was told, and is obeyed in its order."""

from __future__ import annotations

import os
import sys
from multiprocessing import process

import pytest

from pidfdpool.serialization import inherited, payload, scripts
from pidfdpool.worker import boot as boots
from pidfdpool.worker import context, rebuild_guard, script_module, thread_limits
from pidfdpool.worker.boot import PIDFD, SENTINEL, WORKER_PROGRAM, Boot

FIELDS = {
    "handles": SENTINEL, "host_pid": 12, "host_name": "TheHost", "argv": ["a", "b"], "authkey": b"key",
    "preload": ("one", "two"), "forked": False, "watch_memory": True, "capture_stderr": True, "spin": 0.25,
    "threads": 3, "pool_size": 5, "script": ("path", "module", "obstacle"), "runs_script": True,
    "preparation": b"preparation", "logs": (True, 10, ("a",), (0, {"": (30, False)})), "program": ("module", "Class"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_worker(monkeypatch):
    """Have this process be no worker afterwards."""
    monkeypatch.setattr(context, "worker", None)


def told(**options):
    fields = {"handles": PIDFD, "host_pid": 1, "host_name": "h", "argv": [], "authkey": None, "preload": ()}
    return Boot(**{**fields, "forked": False, "preload_call": None, "initializer": None, **options})


def test_every_field_arrives():
    sent = Boot(preload_call=None, initializer=None, **FIELDS)
    received = Boot.load(sent.dump(), [])
    for made in (sent, received):
        assert {name: getattr(made, name) for name in FIELDS} == FIELDS
    assert set(FIELDS) == {name for name in Boot.__slots__ if not name.startswith("_")}


def test_what_is_not_told_is_as_most_pools_have_it():
    boot = told()
    assert (boot.watch_memory, boot.capture_stderr, boot.spin, boot.threads, boot.pool_size) == (
        False,
        False,
        0,
        None,
        1,
    )
    assert (boot.script, boot.runs_script, boot.preparation, boot.logs) == (None, False, None, None)
    assert boot.program == WORKER_PROGRAM == ("pidfdpool.worker.process", "Worker")


@pytest.mark.parametrize("preload", [None, "call of the preload"])
@pytest.mark.parametrize("initializer", [None, "call of the initializer"])
def test_each_of_the_two_calls_arrives_as_itself(preload, initializer):
    def call(text):
        return text and [text.encode()]

    sent = told(preload_call=call(preload), initializer=call(initializer))
    buffers = sent.dump()
    assert len(buffers) == 1 + sum(each is not None for each in (preload, initializer))
    received = Boot.load(buffers, [5, 6])
    assert (received._preload_call, received._initializer) == (call(preload), call(initializer))
    assert received._descriptors == [5, 6]


DONE: list = []


@pytest.fixture
def done():
    DONE.clear()
    return DONE


def note(*what):
    DONE.append((what, rebuild_guard.state.activity))


def test_the_initializer_gets_the_descriptors_that_came_with_it_and_is_rebuilt_as_one(done, monkeypatch):
    def restore(call, descriptors):
        done.append((call, descriptors, rebuild_guard.state.activity))
        return note, ("argument",)

    monkeypatch.setattr(inherited, "restore", restore)
    Boot.load(told(initializer=[b"call"], pool_size=4).dump(), [5, 6]).run_initializer()
    assert done == [([b"call"], [5, 6], rebuild_guard.INITIALIZER), (("argument",), None)]
    assert (context.worker.pid, context.worker.siblings) == (os.getpid(), 4)


def test_a_forked_template_has_the_hosts_own_calls(done):
    boot = told(forked=True, initializer=(note, (1,)), preload_call=lambda: note("preload"))
    boot.run_preload()
    boot.run_initializer()
    assert done == [(("preload",), None), ((1,), None)]
    told().run_initializer()
    assert context.worker.siblings == 1, "it is a worker without an initializer, too"


def test_an_initializer_finds_itself_in_a_worker(done):
    """Pools that it makes are made as in tasks."""
    told(forked=True, initializer=(lambda: done.append(context.worker), ()), pool_size=4).run_initializer()
    assert done == [context.worker]
    assert done[0].siblings == 4


@pytest.mark.parametrize("authkey", [None, b"of the host"])
def test_a_preload_call_has_the_hosts_authkey(done, monkeypatch, authkey):
    monkeypatch.setattr(process, "_current_process", process.BaseProcess(name="a template"))
    before = process.current_process().authkey
    monkeypatch.setattr(payload, "loads", lambda _: done.append(process.current_process().authkey) or (lambda: None))
    told(preload_call=[b"call"], authkey=authkey).run_preload()
    assert done == [authkey or before], "already when it is rebuilt"


def test_a_preload_call_that_fails_is_called_once(done):
    def fail():
        done.append("called")
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        told(forked=True, preload_call=fail).run_preload()
    assert done == ["called"]


def test_the_script_is_run_only_if_that_is_asked_for_or_needed(done, monkeypatch):
    monkeypatch.setattr(script_module, "run_script", lambda: done.append("script"))
    told(forked=True, preload_call=lambda: None).run_preload()
    told().run_preload()
    assert done == []
    told(runs_script=True).run_preload()
    assert done == ["script"]
    monkeypatch.setattr(payload, "loads", lambda _: (_ for _ in ()).throw(LookupError("no script")))
    with pytest.raises(LookupError):
        told(preload_call=[b"call"]).run_preload()
    assert done == ["script"]
    assert not scripts.ran_again


@pytest.mark.parametrize("program", [WORKER_PROGRAM, ("a", "Node")])
def test_what_the_target_of_nodes_imports_may_start_no_swarm(done, monkeypatch, tmp_path, program):
    for number in (1, 2):
        (tmp_path / f"preloaded_{number}.py").write_text(f"from {__name__} import note; note({number})")
        monkeypatch.delitem(sys.modules, f"preloaded_{number}", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    told(preload=("preloaded_1", "preloaded_2"), program=program).run_preload()
    activity = None if program == WORKER_PROGRAM else rebuild_guard.TARGET
    assert done == [((1,), activity), ((2,), activity)]
    for number in (1, 2):
        del sys.modules[f"preloaded_{number}"]


def test_threads_are_limited_only_if_that_is_wanted(done, monkeypatch):
    monkeypatch.setattr(thread_limits, "apply", done.append)
    told().limit_threads()
    assert done == []
    told(threads=0).limit_threads()
    told(threads=2).limit_threads()
    assert done == [0, 2]


def test_tools_are_set_up_only_if_there_are_any(done, monkeypatch):
    monkeypatch.setattr(boots.preparation, "restore", done.append)
    told().run_preload()
    assert done == []
    told(preparation=b"").run_preload()
    assert done == [b""]
