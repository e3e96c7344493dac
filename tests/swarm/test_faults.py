"""What the system refuses, and what nodes write that they must not: it is told, and harms no other node."""

from __future__ import annotations

import errno
import os
import resource
import signal

import pytest

from pidfdpool.loop import template_starter
from pidfdpool.scheduler import events as ev
from pidfdpool.swarm import EventKind, Reason, links
from tests.conditions import eventually
from tests.swarm import nodes
from tests.swarm.swarms import deaths, kinds, pid_of, saw, swarm_of


def test_a_node_that_writes_into_its_channel_is_taken_for_unhealthy():
    with swarm_of(nodes.babble) as swarm:
        assert "into its channel" in saw(swarm, EventKind.UNHEALTHY).detail
        saw(swarm, EventKind.HEALTHY, times=2)
        assert deaths(swarm)[0].reason is Reason.UNHEALTHY


def test_a_node_that_closes_all_descriptors_is_not_taken_for_done():
    with swarm_of(nodes.close_all_descriptors, report_timeout=None, intensity=0) as swarm:
        assert saw(swarm, EventKind.GAVE_UP).history[0].exit_status.code == 1


def test_a_node_that_has_closed_all_descriptors_still_ends_by_sigterm():
    with swarm_of(nodes.close_all_descriptors_and_sleep, report_timeout=None, stop_order="SIGTERM") as swarm:
        pid = pid_of(swarm)
        eventually(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= 3, "it has closed them")
    assert deaths(swarm)[0].exit_status.code == 143


def test_a_node_that_executes_another_program_is_not_ended_by_the_signal_for_stacks():
    with swarm_of(nodes.execute_sleep, report_timeout=None, stop_timeout=0.2) as swarm:
        pid = pid_of(swarm)
        eventually(
            lambda: os.readlink(f"/proc/{pid}/exe").endswith(("sleep", "coreutils")),
            "it has executed the other program",
        )
        swarm.stacks(0.05)
        assert swarm.status().nodes[0].pid == pid
    assert deaths(swarm)[0].exit_status.signal == signal.SIGTERM


def test_a_template_that_has_no_descriptor_left_says_so_and_is_asked_again():
    with swarm_of(nodes.serve, 2) as swarm:
        pid_of(swarm)
        template = swarm.status().template_pid
        limits = resource.prlimit(template, resource.RLIMIT_NOFILE)
        resource.prlimit(template, resource.RLIMIT_NOFILE, (3, limits[1]))
        swarm.signal(signal.SIGKILL, node=1)
        assert os.strerror(errno.EMFILE) in saw(swarm, EventKind.START_FAILED, 1, times=2).detail
        resource.prlimit(template, resource.RLIMIT_NOFILE, limits)
        saw(swarm, EventKind.HEALTHY, 1, times=2)
        assert kinds(swarm, 0) == [EventKind.STARTED, EventKind.HEALTHY]
        assert len(deaths(swarm, 1)) == 1  # a start that fails is no death
        assert swarm.status().nodes[1].attempt == 2  # nor an attempt


def test_a_host_that_has_no_descriptor_left_says_so_and_asks_again(monkeypatch):
    with swarm_of(nodes.serve) as swarm:
        pid_of(swarm)
        refusals = iter([OSError(errno.EMFILE, os.strerror(errno.EMFILE))] * 2)
        pair = links.channels.pair

        def refuse_twice():
            error = next(refusals, None)
            if error is not None:
                raise error
            return pair()

        monkeypatch.setattr(links.channels, "pair", refuse_twice)
        swarm.signal(signal.SIGKILL)
        assert os.strerror(errno.EMFILE) in saw(swarm, EventKind.START_FAILED, times=2).detail
        saw(swarm, EventKind.HEALTHY, times=2)


@pytest.mark.parametrize("usable", [True, False])
def test_a_template_that_cannot_be_started_again_is_tried_again_unless_that_is_of_no_use(usable, monkeypatch):
    kind = ev.TemplateLost if usable else ev.TemplateUnusable
    with swarm_of(nodes.serve) as swarm:
        pid_of(swarm)
        start, refused = template_starter.try_start, []

        def refuse_once(*arguments, **options):
            if not refused:
                refused.append(1)
                return None, kind("the system has refused"), None
            return start(*arguments, **options)

        monkeypatch.setattr(template_starter, "try_start", refuse_once)
        os.kill(swarm.status().template_pid, signal.SIGKILL)
        if usable:
            saw(swarm, EventKind.HEALTHY, times=2)
        else:
            assert swarm.wait(30)
            assert swarm.status().failure == "the system has refused"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_template_that_is_stopped_while_it_is_to_fork_a_node_does_not_hold_up_the_end(end):
    with swarm_of(nodes.serve) as swarm:
        pid_of(swarm)
        os.kill(swarm.status().template_pid, signal.SIGSTOP)
        swarm.signal(signal.SIGKILL)
        eventually(lambda: swarm.status().nodes[0].attempt == 2, "the template is asked for another process")
        getattr(swarm, end)(wait=False)
        assert swarm.wait(20)  # without the host's help the template would be killed after 30 s
