"""A pool at one moment: each number and each word comes from its own place. With a pool of fakes."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.loop import snapshots
from pidfdpool.loop.snapshots import Stats, WorkerInfo
from pidfdpool.scheduler.states import Phase, Slot, State


class Lock:
    """Notes whether it is held."""

    def __init__(self):
        self.held, self.times = False, 0

    def __enter__(self):
        self.held, self.times = True, self.times + 1

    def __exit__(self, *_):
        self.held = False


@pytest.fixture
def core():
    counts = {State.STARTING: 1, State.IDLE: 2, State.BUSY: 3, State.STOPPING: 4, State.DEAD: 99}

    class Arena(SimpleNamespace):
        def __len__(self):
            return 29

    return SimpleNamespace(
        lock=Lock(), submitted=5,
        machine=SimpleNamespace(
            phase=Phase.DRAINING, broken="why", size=6, level=7, counts=counts, tasks=range(8), running=range(9),
            queue=range(10), to_cancel=range(20), prefetched=range(40), delayed=range(11), retries=12, deaths=13,
            restarts=14, template_restarts=15, slots=[],
        ),
        resolver=SimpleNamespace(finished=16, failed=17, cancelled=18, crashes=19),
        leases=SimpleNamespace(arena=Arena(used=1 << 20)), tasks={}, workers={},
    )  # fmt: skip


def test_each_number_is_that_of_its_name(core):
    assert snapshots.stats(core) == Stats(
        state="DRAINING", broken="why", size=6, level=7, starting=1, idle=2, busy=3, stopping=4, submitted=5,
        pending=8, running=9, queued=70, delayed=11, finished=16, failed=17, cancelled=18, retries=12, deaths=13,
        crashes=19, restarts=14, template_restarts=15, segments=29, segment_bytes=1 << 20,
    )  # fmt: skip
    assert core.lock.times == 1, "all at one moment"


def test_before_the_first_submit_all_is_nothing():
    assert Stats() == Stats(
        state="IDLE", broken=None, size=0, level=0, starting=0, idle=0, busy=0, stopping=0, submitted=0, pending=0,
        running=0, queued=0, delayed=0, finished=0, failed=0, cancelled=0, retries=0, deaths=0, crashes=0, restarts=0,
        template_restarts=0, segments=0, segment_bytes=0,
    )  # fmt: skip


def slot(index, state, **options):
    return Slot(index, state=state, generation=70 + index, requested_at=900.0, **options)


def link(core, usage=(1 << 20, 0.5)):
    """Give the host's end of a worker, whose files of proc(5) are not read while the lock is held."""

    def usage_now():
        assert not core.lock.held
        return usage

    return SimpleNamespace(usage_now=usage_now)


def test_a_worker_is_told_with_its_task(core):
    core.machine.slots = [slot(0, State.BUSY, pid=4711, task=5, busy_since=990.0, tasks_done=3)]
    core.tasks = {5: SimpleNamespace(label="work", number=5, attempt=2)}
    core.workers = {0: link(core)}
    assert snapshots.workers(core, 1000.0) == (
        WorkerInfo(
            slot=0, generation=70, pid=4711, state="BUSY", task="work", task_id=5, attempt=2, task_age=10.0,
            tasks_done=3, age=100.0, rss=1 << 20, cpu_time=0.5, retiring=None,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("task", [None, 6], ids=["none", "one that is over"])
def test_a_worker_without_a_task_has_none_of_what_belongs_to_it(core, task):
    core.machine.slots = [slot(0, State.IDLE, task=task, busy_since=990.0, retire_cause=Cause.IDLE)]
    core.tasks = {5: SimpleNamespace(label="work", number=5, attempt=2)}
    core.workers = {0: link(core, (None, None))}
    [info] = snapshots.workers(core, 1000.0)
    assert (info.task, info.task_id, info.attempt, info.task_age) == (None, None, 0, None)
    assert (info.pid, info.rss, info.cpu_time) == (None, None, None)
    assert (info.state, info.retiring) == ("IDLE", Cause.IDLE.value)


def test_only_workers_that_are_there_are_told_by_slot_and_those_without_an_end_here_too(core):
    states = [State.STARTING, State.DEAD, State.STOPPING, State.DEAD]
    core.machine.slots = [slot(index, state) for index, state in enumerate(states)]
    core.workers = {0: link(core, (1, 1.0)), 1: link(core, (2, 2.0))}
    told = snapshots.workers(core, 1000.0)
    assert [(info.slot, info.state, info.rss, info.cpu_time) for info in told] == [
        (0, "STARTING", 1, 1.0),
        (2, "STOPPING", None, None),
    ]
    assert core.lock.times == 1


def test_task_number_zero_is_a_task(core):
    core.machine.slots = [slot(0, State.BUSY, task=0, busy_since=999.0)]
    core.tasks = {0: SimpleNamespace(label="first", number=0, attempt=1)}
    [info] = snapshots.workers(core, 1000.0)
    assert (info.task, info.task_id, info.task_age) == ("first", 0, 1.0)


def test_a_snapshot_is_frozen_and_can_be_told_from_any_thread(core):
    told = []
    thread = threading.Thread(target=lambda: told.append(snapshots.stats(core)))
    thread.start()
    thread.join()
    with pytest.raises(AttributeError):
        told[0].size = 5
    assert told[0] == snapshots.stats(core)
