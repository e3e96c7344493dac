"""Swarm: the class that users call. It checks arguments; `supervisor` does the rest.

Any thread may call it. It belongs to the process that made it: in a forked child it raises RuntimeError.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from pidfdpool import checks
from pidfdpool.executor import arguments, lifecycle
from pidfdpool.scheduler.policy import ForwardLogs
from pidfdpool.swarm import targets
from pidfdpool.swarm.options import Options, Restart, StopStep
from pidfdpool.swarm.supervisor import Supervisor
from pidfdpool.template.recipe import Recipe

if TYPE_CHECKING:
    from pidfdpool.swarm.aio import AsyncSwarm
    from pidfdpool.swarm.records import NodeEvent, SwarmStatus
    from pidfdpool.swarm.trace import SwarmTrace

NODE_PROGRAM = ("pidfdpool.swarm.node_process", "NodeProcess")


class Swarm:
    """Keeps `nodes` processes alive that each run target(node, *args).

        def consume(node):
            with connect() as queue:
                while not node.stopping.is_set():
                    node.healthy()
                    handle(queue.get(timeout=1))

        with Swarm(consume, nodes=4) as swarm:
            swarm.wait()

    Nothing is started before `start()`, which `with` calls. All nodes are forked from one template, so they share
    what it has loaded. One thread of the host supervises them. The host has no child of it, no signal handler and no
    wakeup when nothing is to be done. If the host ends, in whatever way, no node is alive a second later.

    Args:
        target: a function, or an async function, which is run by asyncio.run. It gets a `Node` and `args`. When it
            returns, the node has done its work (exit code 0). When it raises, or exits with another code, it has
            failed. It should return soon after `node.stopping` is set.
        nodes: the number of nodes.
        args: further arguments of target. As the `initargs` of a pool, they may hold `multiprocessing` objects.
        preload: what the template loads before it forks the first node, so that all nodes share its memory: names of
            modules to import, and at most one callable to call after that.
        preload_target: whether the template imports the target's module as well. So nodes start quickly, and share
            the memory of what it imports. Set it to False if that module starts threads or opens connections when it
            is imported, which must not be shared.
        report_timeout: a node that has not called `node.healthy()` for this many seconds is stopped and started
            again. None: nodes need not report.
        start_timeout: the same for the first report after its start. Default: None, which means report_timeout.
        stop_timeout: a node that was told to stop is killed after this many seconds, with its process group.
        stop_order: how a node is told: "request" sets `node.stopping`; "SIGTERM" is sent to it, which sets that as
            well, and if it is set already raises SystemExit in its main thread. A target may have a handler of its
            own. The steps are spread evenly over stop_timeout: with the default the request comes at once, and
            SIGTERM after half of the time.
        restart: "on-failure": a node that ends with exit code 0 is done. "always": it is started again.
        restart_pause: seconds between the end of a node that has failed and its next start. It doubles with each
            young death in a row, up to restart_pause_limit.
        restart_pause_limit: the longest such pause.
        young_age: a node died young if it failed within this many seconds after its start, or before it was healthy.
        intensity: the number of young deaths of one node within `period` seconds that are tolerated. With one more
            it is given up: it is not started again. The other nodes go on. None: no node is ever given up.
        period: see intensity.
        max_memory: a node whose resident memory (of its own process, what it shares with the template included) is
            larger, in bytes, is replaced. It is measured every memory_interval seconds.
        memory_interval: see max_memory.
        max_age: a node is replaced this many seconds after its start.
        overlap: whether a node that is replaced (memory, age, restart) goes on until its replacement is healthy.
            False: no two processes of one node ever live at the same time.
        on_event: called with each `NodeEvent`, in the supervisor's thread. It should be quick. What it raises is
            logged.
        mp_context: how the template is started, as for `PidfdPoolExecutor`: a fresh interpreter by default; "fork":
            a fork of the host, once. Then there is no other template when this one is lost, and no node any more.
        threads_per_node: how many threads numerical libraries may use in each node. None: they decide.
        capture_stderr: whether the last lines that a node wrote to standard error are part of the record of its
            death. All of it is passed on to the host's standard error.
        forward_logs: whether the host's loggers get what nodes log, as the option of the pool. The levels are those
            that the host's loggers have when the template starts. Default: None, which means what no handler of a
            node gets, where the host has set up logging; with mp_context="fork": False.
        name: what the swarm is called in the log. Default: the target's name.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it and its value.
    """

    def __init__(
        self,
        target: Callable[..., object],
        nodes: int = 1,
        *,
        args: Iterable[Any] = (),
        preload: str | Callable[[], object] | Iterable[str | Callable[[], object]] = (),
        preload_target: bool = True,
        report_timeout: float | None = 60.0,
        start_timeout: float | None = None,
        stop_timeout: float = 30.0,
        stop_order: StopStep | tuple[StopStep, ...] = ("request", "SIGTERM"),
        restart: Restart = "on-failure",
        restart_pause: float = 5.0,
        restart_pause_limit: float = 60.0,
        young_age: float = 10.0,
        intensity: int | None = 5,
        period: float = 600.0,
        max_memory: int | None = None,
        memory_interval: float = 1.0,
        max_age: float | None = None,
        overlap: bool = False,
        on_event: Callable[[NodeEvent], object] | None = None,
        mp_context: BaseContext | str | None = None,
        threads_per_node: int | None = None,
        capture_stderr: bool = False,
        forward_logs: ForwardLogs = None,
        name: str | None = None,
    ) -> None:
        options = Options(
            nodes,
            report_timeout=report_timeout,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            stop_order=stop_order,
            restart=restart,
            restart_pause=restart_pause,
            restart_pause_limit=restart_pause_limit,
            young_age=young_age,
            intensity=intensity,
            period=period,
            max_memory=max_memory,
            memory_interval=memory_interval,
            max_age=max_age,
            overlap=overlap,
        )
        call = targets.checked_call(target, args)
        start = arguments.checked_start(mp_context, *call, preload)
        threads = checks.integer("threads_per_node", threads_per_node, least=1, optional=True)
        if on_event is not None and not callable(on_event):
            raise TypeError(f"on_event must be a callable or None, not {checks.short_repr(on_event)}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a text or None, not {checks.short_repr(name)}")
        checks.boolean("capture_stderr", capture_stderr)
        logs = checks.log_choice("forward_logs", forward_logs)
        if logs:  # now, because at the start no file may be readable any more
            import pidfdpool.loop.log_emitter
            import pidfdpool.worker.log_forwarding  # noqa: F401
        checks.boolean("preload_target", preload_target)
        if preload_target and start["way"] != "fork":
            start["preload"] += (targets.module_of(target),)
        arguments.load_for_fork(start)
        recipe = Recipe(
            **start,
            threads=threads,
            pool_size=options.nodes,
            program=NODE_PROGRAM,
            capture_stderr=capture_stderr,
            forward_logs=logs,
        )
        self.name: str = name or getattr(target, "__qualname__", None) or type(target).__name__
        self._supervisor = Supervisor(options, recipe, self.name)
        if on_event is not None:
            self._supervisor.subscribe(on_event)

    # ---- its life ------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the template, the supervisor's thread, and with them the nodes; return the swarm.

        Returns when the nodes are asked for. `wait_until_healthy` waits for them. A swarm is started once.

        Raises:
            CallNotSendable: target, args or the preload callable cannot be pickled.
            TemplateError, OSError: the template cannot be started.
            RuntimeError: it was started already, or stopped; or this is a forked child, or the interpreter exits.
        """
        lifecycle.detect_fork()
        self._supervisor.start()
        return self

    def stop(self, *, wait: bool = True) -> None:
        """Tell every node to stop, kill after stop_timeout those that have not, and end the template. Once is enough.

        wait: whether to return only when nothing is left. In a callback of the swarm's it does not wait.

        Raises:
            RuntimeError: it was not started, or this is a forked child.
        """
        self._supervisor.stop(now=False)
        if wait:
            self._supervisor.join()

    def kill(self, *, wait: bool = True) -> None:
        """Kill every node with its process group now, and end the template. Otherwise as `stop`."""
        self._supervisor.stop(now=True)
        if wait:
            self._supervisor.join()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the swarm has ended: after `stop`, or because every node is done or given up.

        It blocks; in a coroutine use `async with`, whose swarm has an awaitable `wait`.

        timeout: seconds; None: without limit.

        Returns:
            Whether it has ended.

        Raises:
            RuntimeError: it was not started, or this is a forked child; or a callback of the swarm's has called it.
        """
        return self._supervisor.wait(checks.wait_time("timeout", timeout))

    def wait_until_healthy(self, nodes: int | None = None, timeout: float | None = None) -> bool:
        """Wait until so many nodes are healthy at once; default: all. Return whether they are.

        Returns False as soon as that cannot happen any more: the swarm stops, or too many nodes are over.

        Raises:
            RuntimeError: as `wait`.
            ValueError, TypeError: nodes is no number of nodes, timeout no number of seconds.
        """
        wanted = checks.integer("nodes", nodes, least=1, optional=True)
        return self._supervisor.wait_until_healthy(wanted, checks.wait_time("timeout", timeout))

    # ---- what can be asked of it ---------------------------------------------------------------------------

    def quiet(self) -> None:
        """Ask every node to take no new work (`node.quiet`). From now on no node is started again.

        Raises:
            RuntimeError: it is not running.
        """
        self._supervisor.quiet()

    def resize(self, nodes: int) -> None:
        """Change the number of nodes. New ones get the next numbers; those with the highest numbers are stopped.

        Raises:
            RuntimeError: it is not running.
            ValueError, TypeError: nodes is no integer of 1 or more.
        """
        self._supervisor.resize(nodes)

    def restart(self, *, rolling: bool = True) -> None:
        """Replace every node by a new process. Returns at once; `status().restarting` tells whether it goes on.

        Nodes that were given up get another chance. Those that are done stay so. What the template has loaded stays
        as it is.

        rolling: one node after the other: each waits until the one before it is healthy again. If that is given up,
            the rest is not restarted. False: all at once.

        Raises:
            RuntimeError: it is not running.
            TypeError: rolling is no bool.
        """
        self._supervisor.restart(rolling=rolling)

    def signal(self, sig: int, value: int | None = None, *, node: int | None = None) -> int:
        """Send a signal to every node's process, or to one; by pidfd, so that it cannot hit another process.

        value: 64 bits that go along, which `node.messages()` receives. Use SIGRTMIN for them: it queues up.
        node: the number of the node.

        Returns:
            To how many processes it was sent.

        Raises:
            RuntimeError: the swarm is not started, or this is a forked child.
            ValueError, TypeError: there is no such signal, or no such node; or value is no integer of 64 bits.
            PidfdError: the kernel has refused to send it to a process, as it does if nothing receives the messages
                of a node (EAGAIN: its queue is full). It was sent to all the others.
        """
        return self._supervisor.signal(sig, value, node)

    def stacks(self, timeout: float = 1.0) -> dict[int, str]:
        """Return the Python stacks of all threads of each node, as far as they come within the timeout.

        A node writes them even if it is stuck in native code that holds the GIL. One that is stopped does not. It is
        asked at most every 50 ms: a call that comes sooner returns what the one before had asked for.

        Raises:
            RuntimeError: as `signal`.
            ValueError, TypeError: timeout is no number of seconds.
        """
        return self._supervisor.stacks(checks.seconds("timeout", timeout))

    def status(self, *, measure_memory: bool = False) -> SwarmStatus:
        """Return what is known at the moment. Takes microseconds; any thread, a callback of the swarm's as well.

        measure_memory: whether to read now from proc(5) what each node takes. Otherwise it is what was measured last
            for max_memory.

        Raises:
            RuntimeError: this is a forked child.
        """
        return self._supervisor.status(measure_memory=measure_memory)

    def ping(self, timeout: float | None = 1.0) -> bool:
        """Return whether the supervisor's thread goes through its loop within the timeout. For a check of liveness.

        Raises:
            RuntimeError: as `wait`.
        """
        return self._supervisor.ping(checks.wait_time("timeout", timeout))

    def subscribe(self, callback: Callable[[NodeEvent], object]) -> Callable[[], None]:
        """Call callback(event) for each event from now on, as `on_event`. Return what ends that.

        Raises:
            TypeError: it is not callable.
        """
        return self._supervisor.subscribe(callback)

    def events(self) -> AsyncIterator[NodeEvent]:
        """Return an async iterator over the events from now on: `async for event in swarm.events()`.

        It ends when the swarm has ended. Events wait for it without limit.
        """
        from pidfdpool.swarm import aio

        return aio.Events(self._supervisor)

    def trace(self, path: str | os.PathLike[str] | TextIO, *, max_events: int = 1_000_000) -> SwarmTrace:
        """Write what happens to nodes to a file, in a `with` block: `with swarm.trace("run.json"): ...`.

        Perfetto (ui.perfetto.dev) shows such a file, and `python -m pidfdpool report` makes a page of it. It has a
        track for each node with its processes and events; docs/tracing.md describes it. It is written when something
        happens. The block may begin before the start or at any other time.

        Args:
            path: the file, which is overwritten; or a text file that is open for writing, which is written when the
                block ends and not closed.
            max_events: the limit of events in the file. What comes after these is only counted.

        Raises:
            ValueError, TypeError: an argument makes no sense; the message names it and its value. Entering the block
                raises what `SwarmTrace.__enter__` says.
        """
        from pidfdpool.swarm import trace

        return trace.made(self._supervisor, path, max_events)

    # ---- with ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start it, unless that was done, and return it."""
        if not self._supervisor.started:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it and wait. After Ctrl-C, which nodes do not see, they are told to stop as well.

        In a forked child that leaves the block it does nothing: the swarm is the parent's.
        """
        if not self._supervisor.is_own:
            return
        try:
            self.stop()
        except KeyboardInterrupt:
            self.kill()
            raise

    async def __aenter__(self) -> AsyncSwarm:
        """Start it, unless that was done, and return its `AsyncSwarm`, whose methods do not block the event loop."""
        from pidfdpool.swarm import aio

        if not self._supervisor.started:
            self.start()
        return aio.AsyncSwarm(self._supervisor)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, and wait without blocking the event loop."""
        from pidfdpool.swarm import aio

        if self._supervisor.is_own:
            await aio.AsyncSwarm(self._supervisor).stop()

    def __repr__(self) -> str:
        return f"<Swarm {self.name!r}, {self._supervisor.describe()}>"
