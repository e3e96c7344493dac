"""The part of the model in `wakeups` in which others read, and the pool thread only looks whether they do.

A look of the pool thread may find at any time that nobody has read since the one before: the model knows no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.loop.wakeups import Model, State, Step

END = "end"


def sets(following: str, **values: bool) -> Step:
    """Return a step that only stores something."""

    def step(s: State, _me: str) -> str:
        s.update(values)
        return following

    return step


class Watched:
    """Steps of `Watchdog`, and those of an event loop that reads."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def guarding(self, following: str) -> dict[str, Step]:
        """Return the steps by which the pool thread begins to let answers lie, or goes on so."""
        again: dict[str, Step] = {"Watchdog.stands_back: Poller.lead": sets(following, watched=False)}
        return again | self._guard("Watchdog._guard", following)

    def _guard(self, name: str, following: str) -> dict[str, Step]:
        return {
            f"{name}: ticks": sets(f"{name}: guarded", ticks="does not tick" not in self.model.slips),
            f"{name}: guarded": sets(f"{name}: Poller.lead", guarded=True),
            f"{name}: Poller.lead": sets(following, watched=False),
        }

    def looking(self, following: str) -> dict[str, Step]:
        """Return the steps of `Watchdog.look` and `Watchdog.end`, in the pool thread."""

        def offers(s: State, _me: str) -> str:
            if s["ticks"] or not s["offers"] or s["leader"] is not None or s["left"] or s["closed"]:
                return following
            s["offers"] -= 1
            return "LoopReader.watch"

        def check(s: State, _me: str) -> str:
            slips = self.model.slips
            taken = not s["guarded"]
            s["guarded"] = s["reader"] = False
            if ("believes others" in slips and taken) or ("believes the leader" in slips and s["leader"] is not None):
                return "Watchdog._check: end"
            return "Watchdog._check: Poller.follow"

        def serving(s: State, _me: str) -> str | None:
            if s["serving"] is not None:
                return None
            s["guarded"] = s["reader"] = s["hub"] = False
            return "Leadership.close: over"

        return {
            "Watchdog.look: offers?": offers,
            "LoopReader.watch": sets("Watchdog._offer: reader", hub=True),
            "Watchdog._offer: reader": sets("Watchdog._offer: ticks", reader=True),
            **self._guard("Watchdog._offer", following),
            "Watchdog._check: guarded?": check,
            "Watchdog._check: Poller.follow": sets("Watchdog._check: end", watched=True),
            "Watchdog._check: end": sets(following, ticks=False),
            "Watchdog.end: serving?": serving,
        }

    def taking_back(self, following: str) -> dict[str, Step]:
        """Return the steps of `Watchdog.take_back`, in any thread."""

        def leader(s: State, _me: str) -> str:
            return following if s["leader"] is not None else "Watchdog.take_back: Poller.follow"

        return {
            "Watchdog.take_back: guarded": sets("Watchdog.take_back: leader?", guarded=False, reader=False),
            "Watchdog.take_back: leader?": leader,
            "Watchdog.take_back: Poller.follow": sets(following, watched=True),
        }

    def event_loop(self) -> dict[str, Step]:
        """Return the steps of an event loop, one of whose coroutines awaits a result."""
        model = self.model

        def select(s: State, _me: str) -> str | None:
            if model.awaits in s["done"]:
                return END
            return "LoopReader._read_all" if s["hub"] and model.readable(s) else None

        def read(s: State, _me: str) -> str:
            if not s["reader"]:
                return "LoopReader._unwatch"
            if s["leader"] is not None or s["is_served"] or s["serving"] is not None:
                return "Watchdog.take_back: guarded"
            s["serving"], s["is_served"] = "event loop", True
            return "Leadership._serve_in_loop: reader?"

        def still(s: State, me: str) -> str:
            s[f"of {me}"] = model.readable(s) if s["reader"] else ()
            return "Poller.serve: next"

        serving: dict[str, Any] = model.serving("select")
        return {
            "select": select,
            "LoopReader._read_all": read,
            "LoopReader._unwatch": sets("select", hub=False),
            "Leadership._serve_in_loop: reader?": still,
            **serving,
            **self.taking_back("select"),
        }
