"""The rules one by one, with a clock of the test's own; and the tables in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from pidfdpool.swarm import inputs as ip
from pidfdpool.swarm.process_rules import ProcessRules
from pidfdpool.swarm.records import EventKind, NodeState, Phase, Reason
from pidfdpool.swarm.states import RULES, TIME_RULES, render_rules, render_time_rules
from tests.swarm.world import DONE, FAILED, KILLED, World

PAGE = Path(__file__).parents[2] / "docs" / "swarm.md"


def test_each_rule_has_a_handler_and_each_state_one_rule():
    seen = set()
    for rule in RULES:
        assert callable(getattr(ProcessRules, rule.handler, None)) or rule.handler in ("on_died", "on_fork_failed")
        for state in rule.states:
            assert (rule.input, state) not in seen
            seen.add((rule.input, state))
    for rule in TIME_RULES:
        assert callable(getattr(ProcessRules, rule.handler))


def test_the_documentation_shows_the_tables_as_they_are():
    assert render_rules() in PAGE.read_text()
    assert render_time_rules() in PAGE.read_text()


# ---- stopping ------------------------------------------------------------------------------------------------


def test_a_node_is_asked_first_then_gets_sigterm_then_its_group_is_killed():
    world = World(stop_timeout=10.0)
    node = world.up()
    world.give(ip.StopAsked(False))
    assert node.told == ["Request"]
    world.wait(4.9)
    assert node.told == ["Request"]
    world.wait(0.1)
    assert node.told == ["Request", "DumpStack", "Terminate"]
    world.wait(4.9)
    assert world.state() is NodeState.STOPPING
    world.wait(0.1)
    assert node.told == ["Request", "DumpStack", "Terminate", "Kill"]
    assert world.state() is NodeState.KILLING
    world.dies(node, KILLED)
    assert world.state() is NodeState.STOPPED
    assert world.kinds()[-3:] == [EventKind.STOPPING, EventKind.KILLED, EventKind.DIED]


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ("request", ["Request", "Kill"]),
        ("SIGTERM", ["Terminate", "Kill"]),
        (("SIGTERM", "request"), ["Terminate", "DumpStack", "Request", "Kill"]),
    ],
)
def test_the_order_in_which_a_node_is_told_to_stop_can_be_chosen(order, told):
    world = World(stop_order=order)
    node = world.up()
    world.give(ip.StopAsked(False))
    world.wait(30.0)
    assert node.told == told


def test_a_stop_that_is_to_be_now_kills_also_what_stops_already():
    world = World(2)
    one, other = world.up(0), world.up(1)
    world.give(ip.StopAsked(False))
    world.give(ip.StopAsked(True))
    assert (one.told, other.told) == (["Request", "Kill"], ["Request", "Kill"])
    for node in (one, other):
        world.dies(node, KILLED)
    assert world.template_ends_by == "StopTemplate"
    world.template_dies()
    assert world.machine.fleet.phase is Phase.ENDED


def test_a_template_that_does_not_end_is_killed():
    world = World()
    world.give(ip.StopAsked(True))
    world.dies(world.only(), KILLED)
    assert world.template_ends_by == "StopTemplate"
    world.wait(5.0)
    assert world.template_ends_by == "KillTemplate"


def test_a_template_that_is_at_its_preload_is_killed_when_the_swarm_stops():
    world = World(2, booted=False)
    world.wait(1000.0)  # a preload may take long
    assert world.template_ends_by == ""
    world.give(ip.StopAsked(False))
    assert world.template_ends_by == "KillTemplate"
    world.template_dies()
    assert world.machine.fleet.phase is Phase.ENDED
    assert EventKind.START_FAILED not in [event.kind for event in world.events]  # nobody wanted them any more


def test_a_process_that_is_not_forked_yet_is_told_all_the_same():
    world = World()
    node = world.only()
    world.give(ip.StopAsked(False))
    assert node.told == ["Request"]
    world.born(node)
    world.dies(node, DONE)
    assert world.state() is NodeState.STOPPED


# ---- unhealthy and silent -----------------------------------------------------------------------------------


def test_an_unhealthy_node_is_stopped_and_started_again_after_the_pause():
    world = World(restart_pause=5.0, young_age=0.0)
    node = world.up()
    world.give(ip.ReportedUnhealthy(*node.who, "tired"))
    assert node.told == ["Request"]
    world.dies(node, DONE)  # what its target returns does not matter: it is not done
    assert world.state() is NodeState.WAITING
    world.wait(4.9)
    assert not world.alive
    world.wait(0.2)
    assert world.only().attempt == 2
    death = world.machine.fleet.nodes[0].history[-1]
    assert (death.reason, death.detail, death.expected) == (Reason.UNHEALTHY, "tired", False)


def test_a_node_that_reports_is_never_silent_and_wakes_nobody_before_its_time():
    world = World(report_timeout=60.0)
    node = world.up()
    started = world.now
    for _ in range(10):
        assert world.machine.deadline() > world.now
        world.now += 55
        world.reports(node)
        world.wait(1.0)
    assert world.now - started > 300
    assert node.told == []
    assert world.done.count("LookAtReport") <= 10


def test_a_silent_node_writes_its_stack_and_is_stopped():
    world = World(report_timeout=60.0)
    node = world.up()
    world.wait(59.9)
    assert node.told == []
    world.wait(0.2)
    assert node.told == ["DumpStack", "Request"]
    assert EventKind.SILENT in world.kinds()
    world.dies(node, KILLED)
    assert world.machine.fleet.nodes[0].history[-1].reason is Reason.SILENT


def test_the_first_report_has_a_time_of_its_own():
    world = World(report_timeout=2.0, start_timeout=20.0)
    node = world.only()
    world.born(node)
    world.wait(19.9)
    assert node.told == []
    world.wait(0.2)
    assert node.told == ["DumpStack", "Request"]
    world.dies(node, KILLED)
    assert world.machine.fleet.nodes[0].history[-1].reason is Reason.START


def test_a_first_report_whose_message_is_still_on_its_way_counts():
    world = World(report_timeout=10.0)
    node = world.only()
    world.born(node)
    node.reported = world.now + 9.0
    world.wait(11.0)
    assert world.state() is NodeState.HEALTHY
    world.give(ip.ReportedHealthy(*node.who))
    assert world.kinds().count(EventKind.HEALTHY) == 1


def test_nodes_that_need_not_report_are_healthy_when_they_have_begun():
    world = World(report_timeout=None)
    node = world.only()
    world.born(node)
    world.give(ip.Begun(*node.who))
    assert world.state() is NodeState.HEALTHY
    assert world.machine.deadline() is None


def test_a_host_that_was_stopped_does_not_find_its_nodes_silent():
    world = World(report_timeout=10.0)
    node = world.up()
    world.now += 509
    world.give(ip.HeldUp(500.0))
    world.give(ip.Tick())
    assert node.told == []
    world.wait(1.1)
    assert node.told == ["DumpStack", "Request"]


# ---- growth and age -----------------------------------------------------------------------------------------


def test_a_node_that_is_too_large_is_stopped_and_started_again_at_once():
    world = World(max_memory=10, memory_interval=1.0, restart_pause=5.0)
    node = world.up()
    world.wait(3.0)
    node.memory = 11
    world.wait(1.0)
    assert node.told == ["Request"]
    world.dies(node, DONE)
    assert world.only().attempt == 2
    assert EventKind.OUTGROWN in world.kinds()


@pytest.mark.parametrize("interval", [5e-324, 1e-15])
def test_an_interval_that_is_too_short_for_the_clock_is_the_shortest_that_it_can_tell(interval):
    """Guards: the machine measured at one moment without an end, and the swarm could not even be killed."""
    world = World(max_memory=10, memory_interval=interval)
    [node] = world.alive.values()
    world.born(node)
    world.reports(node)
    for _ in range(3):
        at, count = world.machine.deadline(), world.done.count("MeasureMemory")
        assert at >= world.now
        world.now = at
        world.give(ip.Tick())
        assert world.done.count("MeasureMemory") == count + 1
        assert world.machine.deadline() > world.now


def test_with_overlap_the_new_one_is_healthy_before_the_old_one_is_told():
    world = World(max_age=100.0, overlap=True, report_timeout=None)
    old = world.only()
    world.born(old)
    world.give(ip.Begun(*old.who))
    world.wait(100.0)
    [new] = [sim for sim in world.alive.values() if sim is not old]
    assert old.told == []
    world.born(new)
    assert old.told == []
    world.give(ip.Begun(*new.who))
    assert old.told == ["Request"]
    assert world.state() is NodeState.HEALTHY
    world.dies(old, DONE)
    assert (world.state(), world.only().attempt) == (NodeState.HEALTHY, 2)


def test_a_replacement_that_dies_is_tried_again_while_the_old_one_goes_on():
    world = World(max_age=100.0, overlap=True, report_timeout=None, intensity=0, restart_pause=5.0)
    old = world.only()
    world.born(old)
    world.give(ip.Begun(*old.who))
    world.wait(100.0)
    for pause in (5.0, 10.0, 20.0):
        [new] = [sim for sim in world.alive.values() if sim is not old]
        world.born(new)
        world.dies(new, FAILED)
        world.wait(pause - 0.1)
        assert list(world.alive.values()) == [old]
        world.wait(0.2)
        assert len(world.alive) == 2
    assert old.told == []
    assert EventKind.GAVE_UP not in world.kinds()


def test_when_the_old_one_dies_its_replacement_takes_over():
    world = World(max_age=100.0, overlap=True, report_timeout=None)
    old = world.only()
    world.born(old)
    world.give(ip.Begun(*old.who))
    world.wait(100.0)
    world.dies(old, FAILED)
    assert world.state() is NodeState.STARTING
    world.born(world.only())
    world.give(ip.Begun(*world.only().who))
    assert (world.state(), world.only().told) == (NodeState.HEALTHY, [])


# ---- the end of a process -------------------------------------------------------------------------------------


def test_exit_code_0_means_done():
    world = World(2, report_timeout=None)
    other = world.up(1)
    world.dies(world.up(0), DONE)
    assert world.state(0) is NodeState.DONE
    assert world.kinds(0)[-2:] == [EventKind.DIED, EventKind.DONE]
    world.wait(1000.0)
    assert list(world.alive.values()) == [other]
    world.dies(other, DONE)
    assert world.template_ends_by == "StopTemplate"


def test_restart_always_starts_a_node_again_that_is_done():
    world = World(restart="always", restart_pause=1.0, young_age=0.0)
    world.dies(world.up(), DONE)
    assert world.state() is NodeState.WAITING
    world.wait(1.0)
    assert world.only().attempt == 2


def test_the_pause_grows_while_a_node_dies_young():
    world = World(restart_pause=5.0, restart_pause_limit=30.0, intensity=None)
    for pause in (5.0, 10.0, 20.0, 30.0, 30.0):
        world.born(world.only())
        world.dies(world.only(), FAILED)
        world.wait(pause - 0.1)
        assert not world.alive
        world.wait(0.2)
        assert len(world.alive) == 1
    node = world.up()
    world.wait(11.0)
    world.dies(node, FAILED)
    world.wait(5.1)
    assert len(world.alive) == 1


def test_a_node_that_dies_young_too_often_is_given_up_with_its_history():
    world = World(2, intensity=2, period=100.0, restart_pause=1.0)
    world.up(1)
    for _ in range(3):
        world.born(world.only(0))
        world.dies(world.only(0), FAILED)
        world.wait(5.0)
        for other in world.alive.values():
            if other.node == 1:
                other.reported = world.now
    assert world.state(0) is NodeState.GAVE_UP
    [gave_up] = [event for event in world.events if event.kind is EventKind.GAVE_UP]
    assert [death.attempt for death in gave_up.history] == [1, 2, 3]
    assert "3 of its processes died young within 100 s" in gave_up.detail
    assert world.state(1) is NodeState.HEALTHY


def test_deaths_long_ago_do_not_count():
    world = World(intensity=2, period=10.0, restart_pause=6.0, restart_pause_limit=6.0)
    for _ in range(10):
        world.born(world.only())
        world.dies(world.only(), FAILED)
        world.wait(6.1)
    assert world.state() is NodeState.STARTING


def test_a_target_that_cannot_be_loaded_is_not_tried_again():
    world = World()
    node = world.only()
    world.born(node)
    world.give(ip.Ending(*node.who, "ImportError: no module", True))
    world.dies(node, FAILED)
    assert world.state() is NodeState.GAVE_UP
    assert "ImportError: no module" in world.events[-1].detail


def test_a_fork_that_fails_is_tried_again_and_is_no_death():
    world = World(restart_pause=2.0)
    for _ in range(20):
        world.not_born(world.only())
        world.wait(2.0)
    assert world.state() is NodeState.STARTING
    assert world.machine.fleet.nodes[0].deaths == 0


# ---- the template ---------------------------------------------------------------------------------------------


def test_a_lost_template_takes_its_nodes_with_it_and_the_next_one_has_them_started_at_once():
    world = World(2)
    nodes = [world.up(0), world.up(1)]
    world.template_dies()
    assert [node.told for node in nodes] == [["Kill"], ["Kill"]]
    world.wait(0.1)
    assert not world.template_asked  # no node can be started before its predecessor is dead
    for node in nodes:
        world.dies(node, KILLED)
    world.wait(0.1)
    assert world.template_asked
    world.template_starts()
    assert [sim.attempt for sim in world.alive.values()] == [2, 2]
    assert {death.reason for node in world.machine.fleet.nodes.values() for death in node.history} == {
        Reason.TEMPLATE
    }


def test_templates_that_are_lost_too_often_end_the_swarm():
    world = World()
    for _ in range(6):
        world.template_dies()
        world.wait(10.0)
        if world.template_asked:
            world.template_starts()
    assert world.state() is NodeState.GAVE_UP
    assert "6 templates were lost within 60 s" in world.machine.fleet.failure
    assert world.machine.fleet.phase is Phase.ENDED


def test_a_template_that_would_never_work_ends_the_swarm():
    world = World(2)
    node = world.up(0)
    world.template_dies(usable=False)
    world.dies(node, KILLED)
    assert (world.state(0), world.state(1)) == (NodeState.GAVE_UP, NodeState.GAVE_UP)
    assert world.machine.fleet.phase is Phase.ENDED


def test_a_template_that_forks_nothing_is_killed():
    world = World()
    world.wait(29.0)
    assert world.template_ends_by == ""
    world.wait(1.1)
    assert world.template_ends_by == "KillTemplate"
    world.template_dies()
    world.wait(1.0)
    assert world.template_asked


@pytest.mark.parametrize("now", [False, True])
def test_a_template_that_forks_nothing_does_not_hold_up_the_end(now):
    """The node that it was asked for is killed before there is a process of it."""
    world = World()
    world.wait(1.0)
    world.give(ip.StopAsked(now))
    world.wait(4.9)
    assert world.template_ends_by == ""
    world.wait(0.2 if now else 25.2)
    assert world.template_ends_by == "KillTemplate"
    world.template_dies()
    assert world.machine.fleet.phase is Phase.ENDED


def test_a_template_that_forks_nothing_does_not_hold_up_a_node_that_is_restarted():
    world = World(stop_timeout=1.0)
    world.wait(1.0)
    world.give(ip.RestartAsked(False))
    world.wait(5.1)
    assert world.template_ends_by == "KillTemplate"
    world.template_dies()
    world.wait(1.0)
    assert world.template_asked


# ---- what users ask for ----------------------------------------------------------------------------------------


def test_a_quiet_swarm_starts_nothing_again():
    world = World(3, restart_pause=5.0)
    node, other = world.up(0), world.up(1)
    world.dies(world.up(2), FAILED)
    world.give(ip.QuietAsked())
    assert (node.told, world.state(2)) == (["Quiet"], NodeState.STOPPED)
    world.dies(node, FAILED)
    world.dies(other, DONE)
    assert (world.state(0), world.state(1)) == (NodeState.STOPPED, NodeState.DONE)
    assert world.template_ends_by == "StopTemplate"


def test_a_process_that_is_born_into_a_quiet_swarm_is_told():
    world = World()
    node = world.only()
    world.give(ip.QuietAsked())
    world.born(node)
    assert "Quiet" in node.told


def test_resizing_starts_and_stops_the_nodes_with_the_highest_numbers():
    world = World(2)
    nodes = [world.up(0), world.up(1)]
    world.give(ip.ResizeAsked(4))
    assert sorted(sim.node for sim in world.alive.values()) == [0, 1, 2, 3]
    world.give(ip.ResizeAsked(1))
    assert nodes[0].told == []
    for sim in list(world.alive.values()):
        if sim.node:
            assert sim.told == ["Request"]
            world.dies(sim, DONE)
    assert list(world.machine.fleet.nodes) == [0]


def test_a_node_that_is_wanted_again_while_it_stops_is_started_when_it_is_dead():
    world = World(2)
    world.up(0)
    node = world.up(1)
    world.give(ip.ResizeAsked(1))
    world.give(ip.ResizeAsked(2))
    assert sorted(sim.node for sim in world.alive.values()) == [0, 1]
    world.dies(node, DONE)
    assert world.only(1).attempt == 2


def test_a_rolling_restart_takes_one_node_after_the_other():
    world = World(3)
    nodes = [world.up(number) for number in range(3)]
    world.give(ip.RestartAsked(True))
    for number, node in enumerate(nodes):
        assert [each.told for each in nodes[number:]] == [["Request"], *[[]] * (2 - number)]
        world.dies(node, DONE)
        assert world.machine.rolling.under_way
        world.up(number)
    assert not world.machine.rolling.under_way
    assert [sim.attempt for sim in world.alive.values()] == [2, 2, 2]


def test_a_restart_at_once_takes_all():
    world = World(3)
    nodes = [world.up(number) for number in range(3)]
    world.give(ip.RestartAsked(False))
    assert [node.told for node in nodes] == [["Request"]] * 3


def test_a_rolling_restart_ends_where_a_node_is_given_up():
    world = World(2, intensity=0)
    nodes = [world.up(0), world.up(1)]
    world.give(ip.RestartAsked(True))
    world.dies(nodes[0], DONE)
    world.born(world.only(0))
    world.dies(world.only(0), FAILED)
    assert world.state(0) is NodeState.GAVE_UP
    assert not world.machine.rolling.under_way
    assert nodes[1].told == []


def test_a_node_that_was_given_up_gets_another_chance_by_a_restart():
    world = World(2, intensity=0)
    world.up(1)
    world.born(world.only(0))
    world.dies(world.only(0), FAILED)
    assert world.state(0) is NodeState.GAVE_UP
    world.give(ip.RestartAsked(True))
    assert world.only(0).attempt == 2
