"""The frames that may come from a worker, from the template, and from the host. Pure data.

A worker runs the user's code, which can write into any descriptor. So the host checks kind, number and length of the
buffers before it keeps anything of a frame. Code that handles a frame may rely on these checks. The other two
directions are checked in the same way: code of the host's, and a preload, can also write into a wrong descriptor.
"""

from __future__ import annotations

from pidfdpool.transport import framing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Rule:
    """What the frames of one kind must be like; see `frame_rules`."""

    __slots__ = ("check", "fewest", "longest", "most")

    def __init__(
        self,
        fewest: int = 0,
        most: int | None = None,
        longest: int = framing.MAX_LENGTH,
        check: Callable[[int, int, Sequence[int]], str] | None = None,
    ) -> None:
        """fewest, most: number of buffers; most is at least `fewest`. longest: bytes of a buffer.

        check: returns what is wrong with slot, value and the buffers' lengths; "": nothing.
        """
        self.fewest, self.most, self.longest = fewest, fewest if most is None else most, longest
        self.check: Callable[[int, int, Sequence[int]], str] | None = check


class Grammar:
    """The kinds of frames that may come from one side, and what they must be like.

    Nearly all frames are of one kind and have one buffer. That kind is `usual`: such a frame needs no other check,
    unless one of the flags `special` is set in its slot.
    """

    __slots__ = ("_rules", "special", "usual")

    def __init__(self, rules: dict[int, Rule], usual: int | None = None, special: int = 0) -> None:
        self._rules, self.usual, self.special = rules, usual, special

    def check_kind(self, kind: int, count: int | None = None) -> None:
        """Raise ProtocolError if no such frame may come from there. count: of buffers; None: it has not come yet."""
        rule = self._rules.get(kind)
        if rule is None:
            raise framing.ProtocolError(f"a frame of unknown kind {kind}")
        if count is not None and not rule.fewest <= count <= rule.most:
            wanted = rule.fewest if rule.fewest == rule.most else f"{rule.fewest} to {rule.most}"
            raise framing.ProtocolError(f"a frame of kind {kind} with {count} buffers instead of {wanted}")

    def check(self, kind: int, slot: int, value: int, lengths: Sequence[int]) -> None:
        """Raise ProtocolError if no frame with this header and these lengths may come from there."""
        rule = self._rules[kind]
        if lengths and (max(lengths) > rule.longest or sum(lengths) > framing.MAX_LENGTH):
            raise framing.ProtocolError(f"a frame of kind {kind} with a buffer of {max(lengths)} bytes")
        problem = "" if rule.check is None else rule.check(slot, value, lengths)
        if problem:
            raise framing.ProtocolError(f"a frame of kind {kind} with {problem}")


ANY = Grammar({kind: Rule(0, 255) for kind in framing.KINDS})

MAX_TEXT = 1 << 16  # bytes of the reason why a worker is unhealthy
MAX_LOG_RECORD = 1 << 18  # bytes of what travels of a log record
_MAX_PARTS = 256  # of a payload in a segment: the pickle, and at most 255 buffers
_MAX_COUNT = 1 << 31  # of tasks and of everything else that is counted
_NUMBER_SIZE = 8  # bytes of each number in a reference


def _is_reference(length: int) -> bool:
    """Return whether a buffer of this size can be a reference: a segment's number, and a length for each part."""
    return not length % _NUMBER_SIZE and 2 <= length // _NUMBER_SIZE <= 1 + _MAX_PARTS


def _check_task(flags: int, number: int, lengths: Sequence[int]) -> str:
    numbers = bool(flags & framing.HAS_DEADLINE) + bool(flags & framing.HAS_LEASE)
    call, added = lengths[: len(lengths) - numbers], lengths[len(lengths) - numbers :]
    if number < 1:
        return f"task {number}"
    if not call or any(length != _NUMBER_SIZE for length in added):
        return f"flags {flags} and buffers of {list(lengths)} bytes"
    if flags & framing.CALL_IN_SEGMENT and not (len(call) == 1 and _is_reference(call[0])):
        return f"a reference of {list(call)} bytes"
    return ""


def _check_segment(role: int, number: int, _: Sequence[int]) -> str:
    return "" if role <= 1 and number > 0 else f"segment {number} and role {role}"


def _check_result(flags: int, number: int, lengths: Sequence[int]) -> str:
    if flags & framing.RESULT_IN_SEGMENT and not (len(lengths) == 1 and _is_reference(lengths[0])):
        return f"a reference of {list(lengths)} bytes"
    return "" if number > 0 else f"task {number}"


def _check_error(flags: int, number: int, _: Sequence[int]) -> str:
    if flags & framing.RESULT_IN_SEGMENT:
        return "an exception in a segment"
    return "" if number > 0 else f"task {number}"


def _check_stream(order: int, number: int, _: Sequence[int]) -> str:
    return "" if order <= framing.STREAM_END and number > 0 else f"task {number} and order {order}"


def _check_items(together: int, number: int, lengths: Sequence[int]) -> str:
    if together > 1 or (together and len(lengths) != 1):
        return f"flag {together} and buffers of {list(lengths)} bytes"
    return "" if number > 0 else f"task {number}"


def _check_switch(on: int, _value: int, _lengths: Sequence[int]) -> str:
    return "" if on <= 1 else f"slot {on}"


def _value(least: int, most: int) -> Callable[[int, int, Sequence[int]], str]:
    return lambda _slot, value, _lengths: "" if least <= value <= most else f"value {value}"


_PID = _value(1, _MAX_COUNT)
_ERRNO = _value(0, 4095)


def _check_death(_: int, status: int, lengths: Sequence[int]) -> str:
    if lengths[0] != framing.USAGE.size:
        return f"a buffer of {lengths[0]} bytes"
    # wait(2): exited with a code, or killed by a signal; neither stopped nor continued.
    return "" if 0 <= status <= 0xFFFF and (not status & 0xFF or 0 < status & 0x7F < 0x7F) else f"value {status}"


TO_WORKER = Grammar(
    {
        framing.TASK: Rule(1, 255, check=_check_task),
        framing.EXIT: Rule(),
        framing.MAP_SEGMENT: Rule(check=_check_segment),
        framing.UNMAP_SEGMENT: Rule(),
        framing.EXPECT_DESCRIPTORS: Rule(),
        framing.LOG_LEVELS: Rule(1),
        framing.RECORD_TIMES: Rule(check=_check_switch),
        framing.STREAM: Rule(check=_check_stream),
    },
    usual=framing.TASK,
    special=framing.HAS_DEADLINE | framing.USES_SEGMENTS,
)

_OF_WORKER = {
    framing.READY: Rule(),
    framing.RESULT: Rule(1, 255, check=_check_result),
    framing.ERROR: Rule(2, check=_check_error),
    framing.INITIALIZER_FAILED: Rule(2),
    framing.UNHEALTHY: Rule(1, longest=MAX_TEXT),
    framing.DROPPED: Rule(check=_value(1, _MAX_COUNT)),
    framing.CALL_NOT_RECEIVED: Rule(check=_value(1, 1 << 63)),
    framing.OUTDATED: Rule(check=_value(0, 1)),
    framing.ITEMS: Rule(1, 255, check=_check_items),
    framing.LOG: Rule(1, longest=MAX_LOG_RECORD, check=_value(0, 1 << 63)),
}
# On its channel come the large ones; in its pipe come the others, and the places of the large ones.
FROM_WORKER = Grammar(_OF_WORKER, framing.RESULT, framing.RESULT_IN_SEGMENT)
ANSWERS = Grammar({**_OF_WORKER, framing.ON_CHANNEL: Rule()}, framing.RESULT, framing.SEGMENT_FLAGS)

TO_NODE = Grammar({framing.ATTEMPT: Rule(check=_value(1, _MAX_COUNT))})
FROM_NODE = Grammar(
    {
        framing.READY: Rule(),
        framing.HEALTHY: Rule(),
        framing.UNHEALTHY: Rule(1, longest=MAX_TEXT),
        framing.ENDING: Rule(1, longest=MAX_TEXT, check=_value(0, 1)),
        framing.LOG: Rule(1, longest=MAX_LOG_RECORD, check=_value(0, 0)),
    }
)

TO_TEMPLATE = Grammar(
    {
        framing.BOOT: Rule(1, 3),
        framing.SPAWN: Rule(),
        framing.SIGNAL: Rule(check=_value(1, 64)),
        framing.STOP: Rule(),
        framing.INHERITED: Rule(),
        framing.TOKENS: Rule(),
        framing.RUN_SCRIPT: Rule(),
        framing.TRACKER_REQUESTS: Rule(),
        framing.START_TRACKER: Rule(),
    }
)

FROM_TEMPLATE = Grammar(
    {
        framing.LAUNCHED: Rule(check=_PID),
        framing.HELLO: Rule(check=_PID),
        framing.BOOTED: Rule(),
        framing.PRELOAD_FAILED: Rule(2),
        framing.SPAWNED: Rule(check=_PID),
        framing.SPAWN_FAILED: Rule(check=_ERRNO),
        framing.DIED: Rule(1, check=_check_death),
        framing.BLACK_BOX: Rule(),
        framing.STDERR: Rule(),
    }
)
