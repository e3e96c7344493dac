"""All decisions about a swarm. Pure: no clock, no process, no I/O, no lock.

`Machine.decide` takes one input and the time, and returns the actions to carry out, in this order. The supervisor
calls it in its thread. The order of the rules for each node:

    1. it was told to stop, and has not in time: kill its process group
    2. it says that it is unhealthy: stop it
    3. it has been silent for too long: stop it
    4. it has grown too large or too old: replace it
    5. it is dead: report that, wait, start it again
    6. it died young too often: give it up

The first three and what time does are in `process_rules`, the last two in `endings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.swarm import actions as do
from pidfdpool.swarm import inputs as ip
from pidfdpool.swarm.endings import Endings
from pidfdpool.swarm.fleet import Fleet
from pidfdpool.swarm.process_rules import ProcessRules
from pidfdpool.swarm.records import EventKind, NodeState, Phase, Reason
from pidfdpool.swarm.restarts import YoungDeaths
from pidfdpool.swarm.rolling import RollingRestart
from pidfdpool.swarm.states import RULES, Template

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pidfdpool.swarm.options import Options
    from pidfdpool.swarm.states import Node

TEMPLATE_PAUSE = 0.05  # seconds until the next start of a template; doubles with each that dies young
TEMPLATE_PAUSE_LIMIT = 5.0
TEMPLATES = 5  # templates that may die young within TEMPLATE_PERIOD
TEMPLATE_PERIOD = 60.0  # seconds
STOP_TIMEOUT = 5.0  # seconds; a template that was told to end and has not is killed

_TABLE = {(rule.input, state): rule for rule in RULES for state in rule.states}


class Machine:
    """Decides about one swarm. Not thread-safe."""

    def __init__(self, options: Options) -> None:
        self.fleet = Fleet(options)
        self.rolling = RollingRestart(self.fleet)
        self._rules = ProcessRules(self.fleet, Endings(self.fleet))
        self._templates = YoungDeaths(TEMPLATES, TEMPLATE_PERIOD)
        self._template_at = 0.0  # when the next one may be started
        self._kill_template_at: float | None = None
        self._killing = False  # everything, at once
        self._handlers: dict[type[Any], Callable[[Any, float], None]] = {
            ip.TemplateUp: self._on_template_up,
            ip.TemplateBooted: self._on_template_booted,
            ip.TemplateLost: self._on_template_lost,
            ip.TemplateUnusable: self._on_template_unusable,
            ip.StopAsked: self._on_stop_asked,
            ip.QuietAsked: self._on_quiet_asked,
            ip.ResizeAsked: self._on_resize_asked,
            ip.RestartAsked: self._on_restart_asked,
            ip.HeldUp: self._on_held_up,
            ip.Tick: self._on_tick,
        }

    def start(self, now: float) -> list[do.Action]:
        """Begin: the first template is being started."""
        self.fleet.phase, self.fleet.template = Phase.RUNNING, Template.STARTING
        self.fleet.resize(self.fleet.options.nodes, now)
        return self._collected(now)

    def decide(self, event: ip.Input, now: float) -> list[do.Action]:
        """Return what is to be done."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event, now)
        else:
            self._on_process(event, now)
        return self._collected(now)

    def _on_process(self, event: Any, now: float) -> None:
        node = self.fleet.nodes.get(event.node)
        process = next((each for each in node.processes if each.number == event.number), None) if node else None
        if node is not None and process is not None:
            rule = _TABLE[type(event), process.state]
            getattr(self._rules, rule.handler)(node, process, event, now)

    def _collected(self, now: float) -> list[do.Action]:
        self._settle(now)
        actions, self.fleet.actions = self.fleet.actions, []
        return actions

    # ---- the template --------------------------------------------------------------------------------------

    def _on_template_up(self, _event: ip.TemplateUp, _now: float) -> None:
        if self.fleet.template is Template.STARTING:
            self.fleet.template = Template.UP

    def _on_template_booted(self, _event: ip.TemplateBooted, now: float) -> None:
        self._rules.booted_at = now

    def _on_template_lost(self, event: ip.TemplateLost, now: float) -> None:
        asked = self.fleet.template is Template.STOPPING and self._kill_template_at is not None
        self._lose_template(event.reason, now)
        if not asked:
            had_nodes = self._rules.booted_at is not None
            self._rules.booted_at = None
            if had_nodes:
                self._templates.end_streak()
            if self._templates.add(now):
                self._fail(
                    f"{self._templates.count} templates were lost within {TEMPLATE_PERIOD:g} s; {event.reason}"
                )
            pause = TEMPLATE_PAUSE * 2.0 ** min(self._templates.streak - 1, 20)
            self._template_at = now + min(pause, TEMPLATE_PAUSE_LIMIT)

    def _on_template_unusable(self, event: ip.TemplateUnusable, now: float) -> None:
        self._lose_template(event.reason, now)
        self._fail(event.reason)

    def _lose_template(self, reason: str, now: float) -> None:
        """Note that the template is gone: its processes are dying, and the kernel sees to that."""
        self.fleet.template, self._kill_template_at = Template.DOWN, None
        for node in list(self.fleet.nodes.values()):
            for process in list(node.processes):
                if process.pid is None:
                    self._on_process(ip.ForkFailed(node.id, process.number, reason), now)
                    node.start_at = now
                else:
                    process.state, process.reason = NodeState.KILLING, process.reason or Reason.TEMPLATE
                    self.fleet.actions.append(do.Kill(node.id, process.number))

    def _fail(self, reason: str) -> None:
        """Start no process any more."""
        self.fleet.failure = reason
        for node in list(self.fleet.nodes.values()):
            node.replacing = None
            if not node.processes and not node.rest.over:
                self.fleet.give_up(node, reason)

    # ---- what users ask for --------------------------------------------------------------------------------

    def _on_stop_asked(self, event: ip.StopAsked, now: float) -> None:
        if self.fleet.phase is Phase.ENDED:
            return
        self.fleet.phase = Phase.STOPPING
        self.rolling.end()
        self._killing = self._killing or event.now
        for node in list(self.fleet.nodes.values()):
            self.fleet.end(node, Reason.SHUTDOWN, now)
            if self._killing:
                for process in node.processes:
                    self.fleet.kill(node, process, Reason.SHUTDOWN)
        if self.fleet.template is Template.UP and self._rules.booted_at is None:
            # It has forked none of the nodes, and nobody knows how long its preload takes.
            self.fleet.template, self._kill_template_at = Template.STOPPING, now + STOP_TIMEOUT
            self.fleet.actions.append(do.KillTemplate())

    def _on_quiet_asked(self, _event: ip.QuietAsked, _now: float) -> None:
        if self.fleet.phase is not Phase.RUNNING:
            return
        self.fleet.phase = Phase.QUIET
        self.rolling.end()
        for node in list(self.fleet.nodes.values()):
            node.replacing = None
            for process in node.processes:
                self.fleet.tell(EventKind.QUIETED, node, process)
                self.fleet.actions.append(do.Quiet(node.id, process.number))
            if not node.processes:
                self.fleet.rest_in_peace(node)

    def _on_resize_asked(self, event: ip.ResizeAsked, now: float) -> None:
        if self.fleet.phase is Phase.RUNNING:
            self.fleet.resize(event.nodes, now)
            if self.fleet.failure:
                self._fail(self.fleet.failure)

    def _on_restart_asked(self, event: ip.RestartAsked, now: float) -> None:
        if self.fleet.phase is Phase.RUNNING and not self.fleet.failure:
            self.rolling.ask(rolling=event.rolling, now=now)

    # ---- time ----------------------------------------------------------------------------------------------

    def _on_held_up(self, event: ip.HeldUp, _now: float) -> None:
        """Give nodes as much time more: who was stopped together with the host could not report meanwhile."""
        for node in self.fleet.nodes.values():
            for process in node.processes:
                if process.works and process.forked_at is not None:
                    process.forked_at += event.seconds
                    process.reported_at = process.reported_at and process.reported_at + event.seconds

    def _on_tick(self, _event: ip.Tick, now: float) -> None:
        for node in list(self.fleet.nodes.values()):
            for process in list(node.processes):
                self._rules.judge(node, process, now)
        if self._kill_template_at is not None and now >= self._kill_template_at:
            self._kill_template_at = now + STOP_TIMEOUT
            self.fleet.actions.append(do.KillTemplate())

    def deadline(self) -> float | None:
        """Return when the next Tick is due; None: not before something else happens."""
        fleet = self.fleet
        times = [self._kill_template_at]
        if fleet.template is Template.DOWN and self._wants_template():
            times.append(self._template_at)
        for node in fleet.nodes.values():
            times += [self._rules.next_due(node, process) for process in node.processes]
            if fleet.template is Template.UP and self._wants_process(node):
                times.append(node.start_at)
        return min((time for time in times if time is not None), default=None)

    # ---- what follows from all of this ---------------------------------------------------------------------

    def _wants_process(self, node: Node) -> bool:
        if self.fleet.phase is not Phase.RUNNING or self.fleet.failure or not node.wanted:
            return False
        if node.replacing is not None:
            return len(node.processes) == 1 and node.processes[0].works
        return not node.processes and node.rest is NodeState.WAITING

    def _wants_template(self) -> bool:
        return any(map(self._wants_process, self.fleet.nodes.values()))

    def _settle(self, now: float) -> None:
        """Start what is to be started; end when nothing is left."""
        fleet = self.fleet
        self.rolling.go_on(now)
        if fleet.template is Template.UP:
            for node in fleet.nodes.values():
                if node.start_at <= now and self._wants_process(node):
                    fleet.fork(node, now)
        elif fleet.template is Template.DOWN and self._template_at <= now and self._wants_template():
            fleet.template = Template.STARTING
            fleet.actions.append(do.StartTemplate())
        if fleet.phase in (Phase.NEW, Phase.ENDED) or not all(node.over for node in fleet.nodes.values()):
            return
        if fleet.template is Template.DOWN:
            fleet.phase = Phase.ENDED
        elif fleet.template is Template.UP:
            fleet.phase, fleet.template = Phase.STOPPING, Template.STOPPING
            self._kill_template_at = now + STOP_TIMEOUT
            fleet.actions.append(do.StopTemplate())
