"""The promises about nodes, against every order of events that Hypothesis can think of, with all kinds of options.

`world` carries out the machine's actions. After each input it checks that there are never two processes of one node,
or with overlap never more than two, of which the older one was not told to stop when the other was asked for. Also:

  1. if the world goes well from some moment on, every node ends up healthy, done, given up or stopped;
  2. a swarm that was told to stop ends, and nothing of it is alive then;
  3. what was told to stop and does not is killed at its time.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pidfdpool.swarm import inputs as ip
from pidfdpool.swarm.records import NodeState, Phase
from tests.swarm.world import DONE, FAILED, KILLED, World

maybe = st.sampled_from
options = st.fixed_dictionaries(
    {"nodes": st.integers(1, 3), "overlap": st.booleans(), "restart": maybe(["on-failure", "always"])},
    optional={
        "report_timeout": maybe([None, 2.0, 10.0]),
        "start_timeout": maybe([None, 5.0]),
        "stop_timeout": maybe([1.0, 6.0]),
        "stop_order": maybe(["request", "SIGTERM", ("SIGTERM", "request"), ("request", "SIGTERM")]),
        "restart_pause": maybe([0.0, 0.5, 5.0]),
        "young_age": maybe([0.0, 3.0]),
        "intensity": maybe([None, 0, 2]),
        "period": maybe([5.0, 100.0]),
        "max_memory": maybe([None, 10]),
        "max_age": maybe([None, 7.0]),
    },
)


class Drive(RuleBasedStateMachine):
    """Everything around the machine, driven by Hypothesis."""

    world: World | None = None  # made by `begin`

    @initialize(chosen=options)
    def begin(self, chosen):
        self.world = World(**chosen)

    def pick(self, data, wanted=lambda sim: True):
        sims = [sim for sim in self.world.alive.values() if wanted(sim)]
        return data.draw(st.sampled_from(sims)) if sims else None

    goes_on = precondition(lambda self: self.world.machine.fleet.phase is not Phase.ENDED)
    lives = precondition(lambda self: self.world.alive)
    has_template = precondition(lambda self: self.world.template and not self.world.template_ends_by)

    @lives
    @has_template
    @rule(data=st.data(), works=maybe([True, True, True, False]))
    def fork(self, data, works):
        sim = self.pick(data, lambda sim: sim.pid is None)
        if sim is not None:
            self.world.born(sim) if works else self.world.not_born(sim)

    @lives
    @rule(data=st.data())
    def report(self, data):
        sim = self.pick(data, lambda sim: sim.pid is not None)
        if sim is not None:
            self.world.reports(sim)

    @lives
    @rule(data=st.data(), what=maybe(["begun", "unhealthy", "ending", "loading", "large"]))
    def say(self, data, what):
        sim = self.pick(data, lambda sim: sim.pid is not None)
        if sim is None:
            return
        if what == "begun":
            self.world.give(ip.Begun(*sim.who))
        elif what == "unhealthy":
            self.world.give(ip.ReportedUnhealthy(*sim.who, "tired"))
        elif what == "large":
            sim.memory = 99
        else:
            self.world.give(ip.Ending(*sim.who, "ValueError", what == "loading"))

    @lives
    @rule(data=st.data(), status=maybe([DONE, FAILED, KILLED]))
    def die(self, data, status):
        sim = self.pick(data, lambda sim: sim.pid is not None)
        if sim is not None:
            self.world.dies(sim, status)

    @goes_on
    @rule(seconds=maybe([0.01, 1.0, 3.0, 20.0]))
    def wait(self, seconds):
        self.world.wait(seconds)
        for sim in self.world.alive.values():
            if not sim.killed and {"Request", "Terminate"} & set(sim.told):
                told_at = next(
                    process.told_at
                    for node in self.world.machine.fleet.nodes.values()
                    for process in node.processes
                    if process.number == sim.number
                )
                assert self.world.now < told_at + self.world.options.stop_timeout

    @goes_on
    @rule(late=maybe([2.0, 50.0]))
    def be_held_up(self, late):
        self.world.now += late
        self.world.give(ip.HeldUp(late))

    @goes_on
    @has_template
    @rule(usable=maybe([True, True, False]))
    def lose_template(self, usable):
        self.world.template_dies(usable=usable)

    @goes_on
    @precondition(lambda self: self.world.template_asked)
    @rule()
    def start_template(self):
        self.world.template_starts()

    @goes_on
    @precondition(lambda self: self.world.template_ends_by)
    @rule()
    def end_template(self):
        self.world.template_dies()

    @goes_on
    @rule(size=st.integers(1, 4))
    def resize(self, size):
        self.world.give(ip.ResizeAsked(size))

    @goes_on
    @rule(rolling=st.booleans())
    def restart(self, rolling):
        self.world.give(ip.RestartAsked(rolling))

    @rule(which=maybe(["quiet", "stop", "kill"]), sure=st.integers(0, 3))
    def leave(self, which, sure):
        if sure == 0:
            self.world.give(ip.QuietAsked() if which == "quiet" else ip.StopAsked(which == "kill"))

    def teardown(self):
        world = self.world
        if world is None:
            return
        world.go_well()
        fleet = world.machine.fleet
        for node in fleet.nodes.values():
            # With max_age some node is always being replaced.
            assert node.state is NodeState.HEALTHY or node.over or world.options.max_age, node
        if not world.options.max_age:
            assert not world.machine.rolling.under_way
        if fleet.phase is not Phase.ENDED:
            world.give(ip.StopAsked(False))
            world.go_well()
        assert fleet.phase is Phase.ENDED
        assert not world.alive


TestNodes = pytest.mark.timeout(300)(Drive.TestCase)
TestNodes.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
