"""What could be done better, in a sentence each. Pure: numbers -> advice, by one function a rule.

A rule says nothing below its threshold. The thresholds are constants here, and each has a test at it and beside it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from pidfdpool.cli.report import words

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.cli.report.analysis import Analysis, Death

LEAST_SECONDS = 0.1  # what costs less in all, of all workers, is not worth a sentence
WAIT_SHARE = 0.2  # of the workers' time
SHORT_TASK = 0.01  # seconds: shorter ones cost a noticeable share for being handed over
START_SHARE = 0.2  # of the workers' time
STARTS_PER_WORKER = 3  # more of them are replacements
PAYLOAD_RATE = 50e6  # bytes per second
PAYLOAD_LEAST = 10e6  # bytes: less of it takes no time
DOMINANT_SHARE = 0.9  # of the work
IDLE_SHARE = 0.5  # of the workers' time
TAIL_SHARE = 0.2  # of the time from the first task to the last
RETRIED_SHARE = 0.05  # of the attempts
FAILURES = {"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS"}
MEMORY_GROWTH = 1.5  # times
MEMORY_GROWTH_LEAST = 64e6  # bytes


class Advice(NamedTuple):
    """One thing to know: what was observed, with its figures; and what can be done."""

    observed: str
    suggestion: str


def advise(numbers: Analysis) -> list[Advice]:
    """Return what the rules say, those about failures first."""
    return [advice for rule in RULES for advice in rule(numbers)]


def memory_deaths(numbers: Analysis) -> list[Advice]:
    """Workers were killed from outside while their memory had grown."""
    grown = [death for death in _killed_from_outside(numbers) if _has_grown(death)]
    if not grown:
        return []
    most = max(death.memory_last or 0.0 for death in grown)
    who = f"{words.count(len(grown), 'worker')} died of SIGKILL after {'its' if len(grown) == 1 else 'their'}"
    return [
        Advice(
            f"{who} memory had risen, up to {words.size(most)}.",
            "Probably the kernel ended them for want of memory. With hard_memory_per_child= the pool ends a task that"
            " takes too much, and the others stay; smaller tasks, or fewer workers, need less at a time.",
        )
    ]


def kills_from_outside(numbers: Analysis) -> list[Advice]:
    """Workers were killed, and neither the pool did it nor had their memory grown as far as it was seen."""
    killed = [death for death in _killed_from_outside(numbers) if not _has_grown(death)]
    if not killed:
        return []
    who = words.count(len(killed), "worker")
    return [
        Advice(
            f"{who} died of SIGKILL that the pool did not send.",
            "Another process, or the kernel for want of memory, did. The kernel's log (dmesg) and the cgroup's"
            " memory.events tell.",
        )
    ]


def crashes(numbers: Analysis) -> list[Advice]:
    """Workers died by themselves, of another signal or by an exit."""
    unasked = [death.how for death in numbers.deaths if not death.expected and not death.asked]
    kinds = Counter(how for how in unasked if how not in {"", "SIGKILL"})
    found = []
    for how, number in kinds.most_common():
        who = words.count(number, "worker")
        if how.startswith("exit code"):
            found.append(
                Advice(
                    f"{who} left by {'itself' if number == 1 else 'themselves'}, with {how}.",
                    "A task has called os._exit(), or something that does so. The table of deaths names the tasks.",
                )
            )
        elif how in FAILURES:
            found.append(
                Advice(
                    f"{who} died of {how}.",
                    "Most often native code has failed then. The table of deaths names the tasks; capture_stderr=True"
                    " keeps the Python stack in the error.",
                )
            )
        else:
            found.append(Advice(f"{who} died of {how}.", "The pool has not sent it: another process did, or a task."))
    return found


def timeouts(numbers: Analysis) -> list[Advice]:
    """Tasks took longer than they may."""
    number = numbers.outcomes.get("timed out", 0)
    if not number:
        return []
    return [
        Advice(
            f"{words.count(number, 'task')} of {numbers.tasks:,} timed out.",
            "Each costs a worker, which is started anew. If they only needed longer, raise timeout=; the table of"
            " functions shows how long the others took.",
        )
    ]


def retries(numbers: Analysis) -> list[Advice]:
    """Many attempts were for nothing."""
    if not numbers.attempts or numbers.retried / numbers.attempts < RETRIED_SHARE:
        return []
    part = words.share(numbers.retried / numbers.attempts)
    return [
        Advice(
            f"{part} of the attempts ({numbers.retried:,} of {numbers.attempts:,}) failed and were made again.",
            "Their work was lost. The slowest tasks and the deaths show what failed.",
        )
    ]


def waiting(numbers: Analysis) -> list[Advice]:
    """Workers waited for the host."""
    part = numbers.split.share("wait")
    if part < WAIT_SHARE or numbers.split.wait < LEAST_SECONDS:
        return []
    observed = f"Workers waited {words.share(part)} of their time for the host, although there were tasks."
    if numbers.median < SHORT_TASK:
        return [
            Advice(
                f"{observed} Half of the tasks took less than {words.duration(numbers.median)}.",
                "Larger chunks: map() without chunksize= chooses them by itself, or give it a larger one; with"
                " submit(), do more in each call.",
            )
        ]
    return [
        Advice(
            observed,
            "The host did something else, or pickled: compute less in it, and send smaller arguments and results.",
        )
    ]


def starting(numbers: Analysis) -> list[Advice]:
    """Workers took much of their time to start."""
    part = numbers.split.share("start")
    if part < START_SHARE or numbers.split.start < LEAST_SECONDS:
        return []
    observed = f"Start-up took {words.share(part)} of the workers' time"
    slots = len(numbers.workers)
    if numbers.starts > STARTS_PER_WORKER * slots:
        return [
            Advice(
                f"{observed}: {numbers.starts:,} workers were started for {words.count(slots, 'slot')}.",
                "Workers that live longer start less often: a larger max_tasks_per_child= or max_age=; or import in"
                " the template, with preload=.",
            )
        ]
    return [
        Advice(
            f"{observed}.",
            "Keep one pool for the whole program (get_shared_executor()), and import in the template, with preload=,"
            " so that workers find the modules loaded.",
        )
    ]


def payloads(numbers: Analysis) -> list[Advice]:
    """Much is copied between host and workers."""
    if numbers.duration <= 0 or numbers.payload < PAYLOAD_LEAST:
        return []
    rate = numbers.payload / numbers.duration
    if rate < PAYLOAD_RATE:
        return []
    return [
        Advice(
            f"Payloads of {words.size(rate)} per second went between host and workers, {words.size(numbers.payload)}"
            " in all.",
            "What every task needs can be given once, by initializer= or preload=. Large data travels best as arrays"
            " or other buffers, which are shared and not copied through pickle; or send a path, and read it in the"
            " task.",
        )
    ]


def dominant(numbers: Analysis) -> list[Advice]:
    """One function has nearly all of the work."""
    total = sum(function.total for function in numbers.functions)
    if len(numbers.functions) < 2 or total < LEAST_SECONDS:
        return []
    first = numbers.functions[0]
    if first.total / total < DOMINANT_SHARE:
        return []
    return [
        Advice(
            f"One function, {first.name}, has {words.share(first.total / total)} of the work.",
            "Only what makes it faster is felt.",
        )
    ]


def tail(numbers: Analysis) -> list[Advice]:
    """At the end one worker works alone."""
    last = numbers.tail
    if last is None or last.share < TAIL_SHARE or last.seconds < LEAST_SECONDS:
        return []
    return [
        Advice(
            f"For the last {words.duration(last.seconds)}, {words.share(last.share)} of the time, one worker ran task"
            f" {last.number} ({last.function}) while the others had nothing left.",
            "Submit the longest tasks first, with priority= for instance, or divide them.",
        )
    ]


def idling(numbers: Analysis) -> list[Advice]:
    """Workers had nothing to do for much of the time."""
    part = numbers.split.share("idle")
    if part < IDLE_SHARE or numbers.split.idle < LEAST_SECONDS or not numbers.attempts or tail(numbers):
        return []
    return [
        Advice(
            f"Workers were idle {words.share(part)} of their time: nothing was queued.",
            "Fewer workers (max_workers=) would do as well, or more tasks at a time: submit before you wait for"
            " results.",
        )
    ]


RULES: tuple[Callable[[Analysis], list[Advice]], ...] = (
    memory_deaths,
    kills_from_outside,
    crashes,
    timeouts,
    retries,
    waiting,
    starting,
    payloads,
    dominant,
    tail,
    idling,
)


def _killed_from_outside(numbers: Analysis) -> list[Death]:
    return [death for death in numbers.deaths if death.how == "SIGKILL" and not death.expected and not death.asked]


def _has_grown(death: Death) -> bool:
    first, last = death.memory_first, death.memory_last
    if first is None or last is None:
        return False
    return last >= MEMORY_GROWTH * first and last - first >= MEMORY_GROWTH_LEAST
