"""A model of everything around a swarm's machine: it carries out actions, and keeps account of who is alive."""

from __future__ import annotations

from collections import deque

from pidfdpool.pidfd import ExitStatus
from pidfdpool.swarm import actions as do
from pidfdpool.swarm import inputs as ip
from pidfdpool.swarm.machine import Machine
from pidfdpool.swarm.options import Options
from pidfdpool.swarm.records import EventKind, NodeState, Phase

DONE = ExitStatus(code=0)
FAILED = ExitStatus(code=1)
KILLED = ExitStatus(signal=9)


class Sim:
    """One process, from the request for it until its death is told."""

    def __init__(self, action: do.Fork) -> None:
        self.node, self.number, self.attempt = action.node, action.number, action.attempt
        self.pid: int | None = None
        self.reported: float | None = None
        self.memory = 1
        self.told: list[str] = []  # the actions that have reached it

    @property
    def who(self) -> tuple[int, int]:
        return self.node, self.number

    @property
    def killed(self) -> bool:
        return "Kill" in self.told


class World:
    """Drives one machine. Every input is given at `now`."""

    def __init__(self, nodes: int = 1, *, booted: bool = True, **options) -> None:
        self.options = Options(nodes, **options)
        self.machine = Machine(self.options)
        self.now = 100.0
        self.alive: dict[int, Sim] = {}
        self.template = True  # there is one, or its first start is under way
        self.template_asked = False
        self.events: list[do.Tell] = []
        self.done: list[str] = []  # the names of all actions
        self.take(self.machine.start(self.now))
        self.give(ip.TemplateUp())
        if booted:
            self.give(ip.TemplateBooted())

    # ---- carrying out --------------------------------------------------------------------------------------

    def give(self, event: ip.Input) -> None:
        self.take(self.machine.decide(event, self.now))

    def take(self, actions) -> None:
        """Carry out actions in the supervisor's order: what follows from one comes behind all of them."""
        waiting = deque(actions)
        while waiting:
            action = waiting.popleft()
            self.done.append(type(action).__name__)
            follows = self.carry_out(action)
            if follows is not None:
                waiting.extend(self.machine.decide(follows, self.now))
        self.check()

    def carry_out(self, action) -> ip.Input | None:
        if isinstance(action, do.Tell):
            self.events.append(action)
        elif isinstance(action, do.Fork):
            self.fork(action)
        elif isinstance(action, do.StartTemplate):
            assert not self.template
            self.template_asked = True
        elif isinstance(action, (do.StopTemplate, do.KillTemplate)):
            self.template_ends_by = type(action).__name__
        elif isinstance(action, do.LookAtReport):
            return ip.LastReport(action.node, action.number, self.alive[action.number].reported)
        elif isinstance(action, do.MeasureMemory):
            return ip.MemoryMeasured(action.node, action.number, self.alive[action.number].memory)
        elif action.number in self.alive:
            self.alive[action.number].told.append(type(action).__name__)
        return None

    template_ends_by = ""

    def fork(self, action: do.Fork) -> None:
        assert self.template
        mates = [sim for sim in self.alive.values() if sim.node == action.node]
        assert len(mates) <= (1 if self.options.overlap else 0), "two of one node"
        if mates:
            assert not mates[0].told, "a replacement of one that is stopping"
        self.alive[action.number] = Sim(action)

    def check(self) -> None:
        fleet = self.machine.fleet
        assert {process.number for node in fleet.nodes.values() for process in node.processes} == set(self.alive)
        deadline = self.machine.deadline()
        assert deadline is None or deadline == deadline
        if fleet.phase is Phase.ENDED:
            assert not self.alive

    # ---- what may happen -----------------------------------------------------------------------------------

    def born(self, sim: Sim) -> None:
        sim.pid = 1000 + sim.number
        self.give(ip.Forked(*sim.who, sim.pid))

    def not_born(self, sim: Sim) -> None:
        del self.alive[sim.number]
        self.give(ip.ForkFailed(*sim.who, "no process left"))

    def reports(self, sim: Sim) -> None:
        first, sim.reported = sim.reported is None, self.now
        if first:
            self.give(ip.ReportedHealthy(*sim.who))

    def dies(self, sim: Sim, status: ExitStatus = FAILED) -> None:
        del self.alive[sim.number]
        self.give(ip.Died(*sim.who, status))

    def template_dies(self, *, usable: bool = True) -> None:
        self.template = False
        self.template_ends_by = ""
        for sim in list(self.alive.values()):
            if sim.pid is None:
                del self.alive[sim.number]
        self.give(ip.TemplateLost("killed") if usable else ip.TemplateUnusable("no program"))

    def template_starts(self) -> None:
        self.template_asked, self.template = False, True
        self.give(ip.TemplateUp())
        self.give(ip.TemplateBooted())

    def wait(self, seconds: float) -> None:
        """Let time pass, and give each Tick when it is due."""
        until = self.now + seconds
        for _ in range(10_000):
            deadline = self.machine.deadline()
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.give(ip.Tick())
        else:
            raise AssertionError("the machine never rests")
        self.now = until

    # ---- for tests -----------------------------------------------------------------------------------------

    def only(self, node: int = 0) -> Sim:
        [sim] = [sim for sim in self.alive.values() if sim.node == node]
        return sim

    def up(self, node: int = 0) -> Sim:
        """Have the process of a node be born and healthy; return it."""
        sim = self.only(node)
        self.born(sim)
        self.reports(sim)
        return sim

    def state(self, node: int = 0) -> NodeState:
        return self.machine.fleet.nodes[node].state

    def kinds(self, node: int = 0) -> list[EventKind]:
        return [event.kind for event in self.events if event.node == node]

    def go_well(self) -> None:
        """Let everything go well from now on, for a long time."""
        for _ in range(400):
            if self.template_ends_by:
                self.template_dies()
            elif self.template_asked:
                self.template_starts()
            for sim in list(self.alive.values()):
                if sim.number not in self.alive:
                    continue
                if sim.pid is None:
                    self.born(sim)
                if sim.told and {"Request", "Terminate", "Kill"} & set(sim.told):
                    self.dies(sim, KILLED if sim.killed else DONE)
                elif not self.template:
                    self.dies(sim, KILLED)
                else:
                    sim.memory = 1
                    self.reports(sim)
            self.wait(1.0)
