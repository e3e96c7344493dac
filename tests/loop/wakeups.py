"""A model of who sleeps and who is woken: the leader, the pool thread, and whoever resolves futures.

Each thread is a list of steps, named after the functions in `loop.leader`, `loop.outbox`, `loop.poller`,
`loop.event_loop`, `loop.watchdog`, `loop.loop_reader` and `futures` whose steps they are. One step is what no other
thread can come into: one call of a C function, or one look at a field. All orders of all threads' steps are walked,
and a state in which nobody can go on, though somebody waits, is a lost wake-up.

What is not here cannot lose one by itself: deaths and deadlines are the pool thread's alone, which nobody takes from
it, and the locks are Python's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.loop.wakeups_guarded import END, Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    State = dict[str, Any]
    Step = Callable[["State", str], "str | None"]  # the next step's name; None: the thread sleeps


class Model:
    """Some threads, what they share, and the slips that are made in it on purpose.

    waiters: thread and the future that it waits for. answers: the futures whose results the worker writes, in order.
    by_hand: futures that others resolve: by a cancellation, by hand. calls_back: futures with a callback.
    closes: the pool ends when all is answered. interrupted: the future that a signal handler waits for, which has
    interrupted the leader's sleep. guards: how often the pool thread lets answers lie until the next wait. awaits:
    the future that a coroutine awaits; offers: how often the pool thread leaves the channels to its event loop.
    observes: the pool thread is told that somebody waits for answers in another way.
    """

    def __init__(
        self,
        waiters: dict[str, int],
        answers: Iterable[int] = (),
        *,
        by_hand: Iterable[int] = (),
        calls_back: Iterable[int] = (),
        closes: bool = False,
        interrupted: int | None = None,
        guards: int = 0,
        awaits: int | None = None,
        offers: int = 0,
        observes: bool = False,
        slips: Iterable[str] = (),
    ) -> None:
        self.waiters = waiters
        self.calls_back = frozenset(calls_back)
        self.interrupted = interrupted
        self.guards, self.awaits, self.offers = guards, awaits, offers
        self.watched = Watched(self)
        self.slips = frozenset(slips)
        # Of the two steps before the leader sleeps.
        self.first, self.second = "Leadership._lead: note", "Leadership._lead: done?"
        if "looks before noting" in self.slips:
            self.first, self.second = self.second, self.first
        self.by_hand = tuple(by_hand)
        self.answers = tuple(answers)
        self.programs: dict[str, dict[str, Step]] = {name: self.waiter() for name in waiters}
        self.programs["pool thread"] = self.pool_thread()
        if self.answers:
            self.programs["worker"] = {"write": self.write}
        if self.by_hand:
            self.programs["other"] = self.resolver()
        if awaits is not None:
            self.programs["event loop"] = self.watched.event_loop()
        if observes:
            self.programs["observer"] = {**self.watched.taking_back(END)}
        if interrupted is not None:
            self.programs["signal"] = {"interrupt": self.interrupt}
        if closes:
            self.programs["closer"] = {"close": self.close, "wake": self.wake_and_end}

    # ---- walking -------------------------------------------------------------------------------------------

    def begin(self) -> State:
        """Return the state in which all threads are about to begin."""
        state: State = {
            "led": False,  # the leader's eventfd
            "wake": False,  # the pool thread's
            "watched": True,  # whether the outer epoll watches the inner one
            "leader": None,
            "serving": None,  # who holds the lock
            "is_served": False,
            "channel": (),  # written by the worker, and not read
            "unwritten": self.answers,
            "done": frozenset(),
            "noted": frozenset(),  # futures whose `_leader` is set
            "left": (),  # by the leader, for the pool thread
            "closed": False,
            "over": False,
            "poller closed": False,
            "by hand": self.by_hand,
            "signal": False,  # a handler is about to run in the leader
            "handler": None,  # the thread that it has interrupted
            "guarded": False,
            "ticks": False,  # the pool thread's waits are short
            "reader": False,  # an event loop is to read
            "hub": False,  # it watches the inner epoll
            "guards": self.guards,
            "offers": self.offers,
        }
        for name, program in self.programs.items():
            state[f"at {name}"] = next(iter(program))
            state[f"of {name}"] = ()  # what is in its variables
        return state

    def moves(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield what each thread that can go on does next, and the state after that."""
        for name, program in self.programs.items():
            at = state[f"at {name}"]
            if at == END:
                continue
            after = dict(state)
            following = program[at](after, name)
            if following is not None:
                after[f"at {name}"] = following
                yield f"{name}: {at}", after

    def lost(self) -> list[str] | None:
        """Return the steps that lead to a state that nobody can leave, though somebody waits; None: there is none."""
        first = self.begin()
        names = tuple(first)
        seen = {tuple(first.values())}
        came: dict[tuple[Any, ...], tuple[str, tuple[Any, ...] | None]] = {tuple(first.values()): ("", None)}
        stack = [first]
        while stack:
            state = stack.pop()
            key = tuple(state.values())
            stuck = True
            for told, after in self.moves(state):
                stuck = False
                following = tuple(after.values())
                if following not in seen:
                    seen.add(following)
                    came[following] = told, key
                    stack.append(after)
            if stuck and not self.is_right(state):
                steps: list[str] = []
                at: tuple[Any, ...] | None = key
                while at is not None:
                    told, at = came[at]
                    steps.append(told)
                return [*reversed(steps[:-1]), *(f"{name}={value}" for name, value in zip(names, key, strict=True))]
        self.states = len(seen)
        return None

    def is_right(self, state: State) -> bool:
        """Return whether nobody waits in vain: waiters have ended, futures are done, and who had to end has."""
        for name in self.programs:
            sleeps = name == "pool thread" and not state["closed"] and state["at pool thread"] == "Poller.wait"
            if state[f"at {name}"] != END and not sleeps:
                return False
        if state["ticks"] and state["at pool thread"] != END:
            return False  # the pool thread would wake for ever
        wanted = {*self.waiters.values(), *self.answers, *self.by_hand}
        return wanted <= state["done"] and not state["left"] and (state["poller closed"] or not state["closed"])

    # ---- a thread that waits: Future._wait, Leadership.wait, Leadership._lead ------------------------------------

    def waiter(self) -> dict[str, Step]:
        """Return the steps of a thread that waits for a future."""
        steps: dict[str, Step] = {
            "Future.result: done?": lambda s, me: END if self.of(me) in s["done"] else "Leadership.wait: is_served?",
            "Leadership.wait: is_served?": lambda s, _: (
                "Future._wait: sleep" if s["is_served"] else "Leadership.wait: setdefault"
            ),
            "Leadership.wait: setdefault": self.setdefault,
            "Leadership.wait: closed?": lambda s, _: (
                "Leadership.wait: leave" if s["closed"] else "Leadership.wait: reader?"
            ),
            "Leadership.wait: reader?": lambda s, _: (
                "Leadership.wait: take" if s["reader"] else "Leadership.wait: guarded?"
            ),
            "Leadership.wait: take": self.take_from_loop,
            "Leadership.wait: guarded?": lambda s, _: self.first if s["guarded"] else "Poller.lead",
            "Poller.lead": self.lead,
            "Leadership._lead: note": self.note,
            "Leadership._lead: done?": self.is_done,
            "Poller.wait_for_answers": self.wait_for_answers,
            "Leadership._lead: forget": self.forget,
            "Leadership._lead: is_served?": lambda s, _: (
                "Leadership._lead: forget at last" if s["is_served"] else "Poller.serve: acquire"
            ),
            **self.serving("Leadership._lead: left?"),
            "Leadership._lead: left?": lambda s, _: "Leadership._lead: forget at last" if s["left"] else self.first,
            "Leadership._lead: forget at last": self.forget_at_last,
            "Leadership.wait: guarded at last?": lambda s, _: (
                "Leadership.wait: leave" if s["guarded"] else "Poller.follow"
            ),
            "Poller.follow": self.follow,
            "Leadership.wait: leave": self.leave,
            "Leadership.wait: over?": self.close_at_last,
            "Future._wait: sleep": lambda s, me: END if self.of(me) in s["done"] else None,
        }
        if self.interrupted is not None:
            steps |= {
                "handler: Leadership._lead: note": self.note_again,
                "handler: Leadership._lead: done?": lambda s, _: (
                    "handler: wake_leader" if self.interrupted in s["done"] else "handler: Poller.wait_for_answers"
                ),
                "handler: Poller.wait_for_answers": self.wait_again,
                "handler: Leadership._lead: is_served?": lambda s, _: (
                    "handler: Future._wait: sleep"
                    if s["is_served"] and "a handler stops leading" in self.slips
                    else "Poller.serve: acquire"
                ),
                "handler: Future._wait: sleep": lambda s, _: (
                    "handler: wake_leader" if self.interrupted in s["done"] else None
                ),
                "handler: wake_leader": self.wake_the_interrupted,
            }
        return steps

    def of(self, me: str) -> int:
        """Return what a thread waits for."""
        return self.waiters[me]

    def setdefault(self, s: State, me: str) -> str:
        if s["leader"] is not None:
            return "Leadership.wait: over?"
        s["leader"] = me
        return "Leadership.wait: closed?"

    def lead(self, s: State, _me: str) -> str:
        s["watched"] = False
        return self.first

    def note(self, s: State, me: str) -> str:
        s["noted"] |= {self.of(me)}
        return self.behind("Leadership._lead: note")

    def is_done(self, s: State, me: str) -> str:
        if self.of(me) in s["done"] or s["closed"]:
            return "Leadership._lead: forget at last"
        return self.behind("Leadership._lead: done?")

    def behind(self, step: str) -> str:
        """Return what follows one of the two steps before the leader sleeps."""
        return self.second if step == self.first else "Poller.wait_for_answers"

    def wait_for_answers(self, s: State, me: str) -> str | None:
        ready = self.readable(s)
        if s["poller closed"]:
            return None  # it sleeps for good
        if ready:
            s[f"of {me}"] = ready
            return "Leadership._lead: forget"
        if s["signal"]:
            s["signal"], s["handler"] = False, me
            return "handler: Leadership._lead: note"
        return None

    def forget(self, s: State, me: str) -> str:
        s["noted"] -= {self.of(me)}
        return "Leadership._lead: is_served?"

    def forget_at_last(self, s: State, me: str) -> str:
        s["noted"] -= {self.of(me)}
        return "Leadership.wait: guarded at last?"

    def take_from_loop(self, s: State, _me: str) -> str:
        s["guarded"] = s["reader"] = False
        return "Leadership.wait: guarded?"

    def follow(self, s: State, _me: str) -> str:
        s["watched"] = "does not give back" not in self.slips
        return "Leadership.wait: leave"

    def leave(self, s: State, me: str) -> str:
        if s["leader"] == me:
            s["leader"] = None
        return "Leadership.wait: over?"

    def close_at_last(self, s: State, _me: str) -> str:
        if s["over"]:
            s["poller closed"] = True
        return "Future._wait: sleep"

    # ---- a handler that has interrupted the leader's sleep, and waits for another future ---------------------------

    def interrupt(self, s: State, _me: str) -> str:
        """Be the signal, whose handler runs when next the leader sleeps."""
        s["signal"] = True
        return END

    def note_again(self, s: State, _me: str) -> str:
        s["noted"] |= {self.interrupted}
        return "handler: Leadership._lead: done?"

    def wait_again(self, s: State, me: str) -> str | None:
        ready = self.readable(s)
        if not ready:
            return None
        s[f"of {me}"] = ready
        s["noted"] -= {self.interrupted}
        return "handler: Leadership._lead: is_served?"

    def wake_the_interrupted(self, s: State, _me: str) -> str:
        s["handler"] = None
        s["noted"] -= {self.interrupted}
        if "a handler wakes nobody" not in self.slips:
            s["led"] = True
        return "Poller.wait_for_answers"

    # ---- what the leader and the pool thread do alike: Poller.serve -----------------------------------------------

    def readable(self, s: State) -> tuple[str, ...]:
        """Return what the inner epoll has to tell."""
        return ("led",) * s["led"] + ("channel",) * bool(s["channel"])

    def serving(self, following: str) -> dict[str, Step]:
        """Return the steps that serve what is ready, which is in the thread's variables."""
        served = {"led": "Poller._drain_led", "channel": "Link.read"}
        served |= {"wake": "Poller._drain", "inner": "Poller._serve_inner"}

        def acquire(s: State, me: str) -> str | None:
            if s["serving"] is not None:
                return None
            s["serving"], s["is_served"] = me, True
            return "Poller.serve: next"

        def next_one(s: State, me: str) -> str:
            ready = s[f"of {me}"]
            if not ready:
                s["serving"], s["is_served"] = None, False
                return "handler: Leadership._lead: note" if s["handler"] == me else following
            if isinstance(ready[0], int):
                return "Outbox.must_leave"
            s[f"of {me}"] = ready[1:]
            return {
                "led": "Poller._drain_led",
                "channel": "Link.read",
                "wake": "Poller._drain",
                "inner": "Poller._serve_inner",
            }[ready[0]]

        def drain(s: State, _me: str) -> str:
            s["wake"] = False
            return "Poller.serve: next"

        def inner(s: State, me: str) -> str:
            if s["guarded"] and s["ticks"]:
                return "Watchdog.stands_back: Poller.lead"
            if s["guards"]:
                s["guards"] -= 1
                return "Watchdog._guard: ticks"
            s[f"of {me}"] = self.readable(s)
            return "Poller.serve: next"

        def drain_led(s: State, _me: str) -> str:
            s["led"] = False
            return "Poller._drain_led: for whom?"

        def for_whom(s: State, me: str) -> str:
            if s["leader"] not in (None, me) and "drains for good" not in self.slips:
                s["led"] = True
            return "Poller.serve: next"

        def read(s: State, me: str) -> str:
            s[f"of {me}"], s["channel"] = s["channel"] + s[f"of {me}"], ()
            return "Poller.serve: next"

        def held_up(s: State, me: str) -> str:
            futures = tuple(item for item in s[f"of {me}"] if isinstance(item, int))
            if me in ("pool thread", "event loop") or not (s["left"] or futures[0] in self.calls_back):
                return "Future._resolve: state"
            s["left"] += futures
            s[f"of {me}"] = s[f"of {me}"][len(futures) :]
            return "Outbox.leave: closed?"

        def closed(s: State, _me: str) -> str:
            return "Outbox.finish" if s["closed"] else "Poller.wake"

        def wake(s: State, _me: str) -> str:
            s["wake"] = "leaves without a word" not in self.slips
            return "Poller.serve: next"

        return {
            **self.watched.guarding("Poller.serve: next"),
            "Poller.serve: acquire": acquire,
            "Poller.serve: next": next_one,
            "Poller._drain": drain,
            "Poller._serve_inner": inner,
            "Poller._drain_led": drain_led,
            "Poller._drain_led: for whom?": for_whom,
            "Link.read": read,
            "Outbox.must_leave": held_up,
            "Outbox.leave: closed?": closed,
            **self.finishing("Outbox.finish", "Poller.serve: next"),
            "Poller.wake": wake,
            "Future._resolve: state": self.resolve_first("Future._resolve: _leader?"),
            "Future._resolve: _leader?": self.resolve_then("Poller.serve: next"),
        }

    def resolve_first(self, following: str) -> Step:
        """Return the first of the two steps in which the first of a thread's futures is resolved."""

        def state(s: State, me: str) -> str:
            s["done"] |= {s[f"of {me}"][0]}
            return following

        return state

    def resolve_then(self, following: str, *, keeps: bool = False) -> Step:
        """Return the second, of `_invoke_callbacks`. keeps: the future stays in the thread's variables."""

        def ring(s: State, me: str) -> str:
            future, *rest = s[f"of {me}"]
            if future in s["noted"] and not s["poller closed"]:
                s["led"] = True
            if not keeps:
                s[f"of {me}"] = tuple(rest)
            return following

        return ring

    def finishing(self, name: str, following: str) -> dict[str, Step]:
        """Return the steps of `Outbox.finish`, the first of them under this name."""

        def pop(s: State, me: str) -> str:
            if not s["left"]:
                return following
            s[f"of {me}"], s["left"] = (s["left"][0], *s[f"of {me}"]), s["left"][1:]
            return f"{name}: state"

        return {
            name: pop,
            f"{name}: state": self.resolve_first(f"{name}: _leader?"),
            f"{name}: _leader?": self.resolve_then(name),
        }

    # ---- the pool thread: EventLoop.run, _turn -------------------------------------------------------------------

    def pool_thread(self) -> dict[str, Step]:
        """Return the steps of the pool thread."""

        def catch_up(s: State, me: str) -> str:
            if not s["left"]:
                return "EventLoop._turn: closed?"
            s[f"of {me}"] = (s["left"][0],)
            return "Outbox.run_left: state"

        def remove(s: State, me: str) -> str:
            (mine,), s[f"of {me}"] = s[f"of {me}"], ()
            if "removes the first" in self.slips:
                s["left"] = s["left"][1:]
            else:
                s["left"] = tuple(future for future in s["left"] if future != mine)
            return "Outbox.run_left"

        def wait(s: State, me: str) -> str | None:
            ready = ("wake",) * s["wake"] + ("inner",) * (s["watched"] and bool(self.readable(s)))
            if not ready:
                return "Watchdog._check: guarded?" if s["ticks"] else None
            s[f"of {me}"] = ready
            return "Poller.serve: acquire"

        def end(s: State, _me: str) -> str:
            if s["leader"] is not None and not s["led"]:
                s["led"] = True
            return "Watchdog.end: serving?"

        def over(s: State, _me: str) -> str:
            s["over"] = True
            return "Leadership.close: leader?"

        def close(s: State, _me: str) -> str:
            if s["leader"] is None or "closes the epoll of a leader" in self.slips:
                s["poller closed"] = True
            return "Outbox.finish at last"

        return {
            "EventLoop.run: closed?": lambda s, _: "Leadership.end" if s["closed"] else "Outbox.run_left",
            "Outbox.run_left": catch_up,
            "Outbox.run_left: state": self.resolve_first("Outbox.run_left: _leader?"),
            "Outbox.run_left: _leader?": self.resolve_then("Outbox.run_left: remove", keeps=True),
            "Outbox.run_left: remove": remove,
            "EventLoop._turn: closed?": lambda s, _: "Leadership.end" if s["closed"] else "Poller.wait",
            "Poller.wait": wait,
            **self.serving("Watchdog.look: offers?"),
            **self.watched.looking("EventLoop.run: closed?"),
            "Leadership.end": end,
            "Leadership.close: over": over,
            "Leadership.close: leader?": close,
            **self.finishing("Outbox.finish at last", END),
        }

    # ---- others ------------------------------------------------------------------------------------------------

    def write(self, s: State, _me: str) -> str:
        """Be the worker, which writes its answers."""
        future, *rest = s["unwritten"]
        s["channel"] += (future,)
        s["unwritten"] = tuple(rest)
        return "write" if rest else END

    def resolver(self) -> dict[str, Step]:
        """Return the steps of a thread that resolves futures by hand, or cancels them."""

        def begin(s: State, me: str) -> str:
            if not s["by hand"]:
                return END
            s[f"of {me}"], s["by hand"] = s["by hand"][:1], s["by hand"][1:]
            return "look first" if "looks for the leader first" in self.slips else "Future.cancel: state"

        def look_first(s: State, me: str) -> str:
            s[f"of {me}"] += (s[f"of {me}"][0] in s["noted"],)
            return "and then resolve"

        def and_then(s: State, me: str) -> str:
            future, rings = s[f"of {me}"]
            s["done"] |= {future}
            s["led"] = s["led"] or rings
            s[f"of {me}"] = ()
            return "begin"

        return {
            "begin": begin,
            "Future.cancel: state": self.resolve_first("Future.cancel: _leader?"),
            "Future.cancel: _leader?": self.resolve_then("begin"),
            "look first": look_first,
            "and then resolve": and_then,
        }

    def close(self, s: State, _me: str) -> str | None:
        """Carry out the machine's last action: it knows of nothing that is left, though futures may be untold."""
        if s["unwritten"] or s["channel"] or s["by hand"]:
            return None
        s["closed"] = True
        return "wake"

    def wake_and_end(self, s: State, _me: str) -> str:
        s["wake"] = True
        return END
