"""The pure parts of `swarm`: signals to commands, readings to answers, nodes to a table."""

from __future__ import annotations

import signal

import pytest

from pidfdpool.cli.swarm.commands import Command, Commands
from pidfdpool.cli.swarm.health import Reading, answer
from pidfdpool.cli.swarm.table import Row, render

STOPS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("first", STOPS)
@pytest.mark.parametrize("second", STOPS)
def test_a_second_request_to_stop_is_urgent(first, second):
    commands = Commands()
    assert commands.of(first) is Command.STOP
    assert commands.of(second) is Command.STOP_NOW
    assert commands.of(first) is Command.STOP_NOW


def test_what_would_start_nodes_or_quiet_them_is_ignored_during_a_stop():
    commands = Commands()
    assert [commands.of(number) for number in (signal.SIGHUP, signal.SIGTSTP)] == [Command.RESTART, Command.QUIET]
    commands.of(signal.SIGTERM)
    assert [commands.of(number) for number in (signal.SIGHUP, signal.SIGTSTP)] == [Command.NOTHING] * 2


def test_stacks_and_orphans_are_seen_to_at_any_time():
    commands = Commands()
    for _ in range(2):
        assert commands.of(signal.SIGTTIN) is Command.DUMP_STACKS
        assert commands.of(signal.SIGCHLD) is Command.REAP
        commands.of(signal.SIGTERM)


def test_every_signal_has_a_command_and_every_command_a_signal():
    commands = Commands()
    before = {commands.of(number) for number in Commands.SIGNALS - set(STOPS)}
    assert before | {commands.of(number) for number in (*STOPS, *Commands.SIGNALS)} == set(Command)


def reading(**changes):
    usual = {"turning": True, "state": "running", "healthy": 3, "needed": 2, "nodes": [{"node": 0}]}
    return Reading(**{**usual, **changes})


def test_a_swarm_that_runs_is_live_and_ready():
    assert answer("/livez", reading()) == (200, {"live": True})
    assert answer("/readyz", reading()) == (200, {"ready": True, "healthy": 3, "needed": 2})


def test_too_few_healthy_nodes_are_not_ready_but_live():
    few = reading(healthy=1)
    assert answer("/livez", few).status == 200
    told = {"ready": False, "why": "1 of 2 nodes that are needed are healthy", "healthy": 1, "needed": 2}
    assert answer("/readyz", few) == (503, told)


def test_a_swarm_that_is_not_running_is_not_ready():
    status, document = answer("/readyz", reading(state="stopping"))
    assert (status, document["why"]) == (503, "the swarm is stopping")


def test_a_supervisor_that_stands_still_is_neither_live_nor_ready():
    still = reading(turning=False)
    assert answer("/livez", still).status == answer("/readyz", still).status == 503
    assert answer("/status", still).status == 200


def test_the_status_tells_of_every_node():
    assert answer("/status", reading()).document["nodes"] == [{"node": 0}]


@pytest.mark.parametrize("path", ["/", "/livez/", "/status.json", "/LIVEZ"])
def test_other_pages_do_not_exist(path):
    assert answer(path, reading()) is None


def test_the_table_has_a_line_for_each_node_and_counts_its_deaths():
    rows = [
        Row(0, 1, "done", {}),
        Row(10, 4, "stopped", {"killed by SIGKILL": 2, "exit code 3": 1}),
    ]
    assert render(rows).split("\n") == [
        "node  attempts  state    deaths",
        "   0         1  done     none",
        "  10         4  stopped  2 x killed by SIGKILL, exit code 3",
    ]
