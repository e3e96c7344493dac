"""No wake-up is lost, whatever the order in which leader, pool thread and others take their steps."""

from __future__ import annotations

import pytest

from pidfdpool.executor.futures import Future
from pidfdpool.loop.event_loop import EventLoop
from pidfdpool.loop.leader import Leadership
from pidfdpool.loop.links import Link
from pidfdpool.loop.loop_reader import LoopReader
from pidfdpool.loop.outbox import Outbox
from pidfdpool.loop.poller import Poller
from pidfdpool.loop.watchdog import Watchdog
from tests.loop.wakeups import Model

SCENES = {
    "one waits": lambda **slips: Model({"a": 0}, [0], **slips),
    "two wait for two": lambda **slips: Model({"a": 0, "b": 1}, [1, 0], **slips),
    "two wait for one": lambda **slips: Model({"a": 0, "b": 0}, [0], **slips),
    "by hand": lambda **slips: Model({"a": 0}, [1], by_hand=[0], **slips),
    "two, by hand": lambda **slips: Model({"a": 0, "b": 1}, by_hand=[0, 1], **slips),
    "callbacks": lambda **slips: Model({"a": 1}, [0, 1], calls_back=[0], **slips),
    "a late callback": lambda **slips: Model({"a": 1}, [0], by_hand=[1], calls_back=[0], **slips),
    "closing": lambda **slips: Model({"a": 0}, [0], closes=True, **slips),
    "closing, by hand": lambda **slips: Model({"a": 0}, by_hand=[0], closes=True, **slips),
    "closing, callbacks": lambda **slips: Model({"a": 1}, [0, 1], calls_back=[0, 1], closes=True, **slips),
    "an answer lies": lambda **slips: Model({"a": 0}, [0], guards=2, **slips),
    "answers lie for two": lambda **slips: Model({"a": 0, "b": 1}, [1, 0], guards=1, **slips),
    "an answer lies, observed": lambda **slips: Model({"a": 0}, [0, 1], guards=1, observes=True, **slips),
    "an answer lies, closing": lambda **slips: Model({"a": 0}, [0], guards=1, closes=True, **slips),
    "an event loop": lambda **slips: Model({}, [1, 0], awaits=0, offers=2, **slips),
    "an event loop, and one waits": lambda **slips: Model({"a": 0}, [2, 1, 0], awaits=1, offers=1, **slips),
    "an event loop, closing": lambda **slips: Model({}, [1, 0], awaits=0, offers=1, closes=True, **slips),
    "an event loop, by hand": lambda **slips: Model({"a": 0}, [2, 1], by_hand=[0], awaits=1, offers=1, **slips),
    "a handler": lambda **slips: Model({"a": 0}, [0, 1], interrupted=1, **slips),
}


# What a maintainer may do by mistake, and a scene in which somebody then sleeps for good.
SLIPS = {
    "looks before noting": "by hand",  # whether the future is done, before it is noted that its leader is to be woken
    "looks for the leader first": "by hand",  # and resolves the future then
    "does not give back": "two wait for two",  # the channels
    "drains for good": "two, by hand",  # what was for the leader, in a pool thread that was late
    "leaves without a word": "a late callback",  # to the pool thread
    "removes the first": "closing, callbacks",  # of what was left, not what it has run: another thread is at it, too
    "closes the epoll of a leader": "closing",
    "believes the leader": "answers lie for two",  # who has seen that the channels are guarded, and is about to leave
    "does not tick": "an event loop",  # in a loop that does not read
    "believes others": "an answer lies, observed",  # who have taken the channels back, and were late
    "a handler stops leading": "a handler",  # while the channels are its own thread's
    "a handler wakes nobody": "a handler",  # though it has used up what was to wake the wait that it interrupted
}


@pytest.mark.parametrize("scene", SCENES)
def test_nobody_sleeps_while_what_it_waits_for_is_there(scene):
    assert SCENES[scene]().lost() is None


@pytest.mark.parametrize("slip", SLIPS)
def test_the_model_tells_of_a_lost_wake_up(slip):
    steps = SCENES[SLIPS[slip]](slips=[slip]).lost()
    assert steps, "nobody sleeps for good, in whatever order"


def test_the_steps_are_those_of_the_code():
    """Whoever renames a function, or takes one away, is to look at the model, too."""
    owners = {
        kind.__name__: kind for kind in (EventLoop, Future, Leadership, Link, LoopReader, Outbox, Poller, Watchdog)
    }
    steps = {step for scene in SCENES.values() for program in scene().programs.values() for step in program}
    named = {step.removeprefix("handler: ").split(":")[0].split()[0] for step in steps if "." in step}
    made_at_once = {"Poller.lead", "Poller.follow"}
    unknown = [name for name in named - made_at_once if not hasattr(owners[name.split(".")[0]], name.split(".")[1])]
    assert len(named) > 15
    assert unknown == []
