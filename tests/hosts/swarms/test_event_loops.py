"""asyncio and Twisted, each with children of its own that it reaps, and a swarm."""

from __future__ import annotations

import pytest

from tests.conditions import marked
from tests.hosts.observing import expect, expect_nothing_left, host, python, within
from tests.hosts.swarms.nodes import kill_and_expect_another

SECTION = "Event loops"
ASYNCIO = """
import asyncio, os, signal, sys
from tests.hosts.programs.swarms.contender import Swarm
async def main():
    loop, codes, seen = asyncio.get_running_loop(), [], []
    loop.add_signal_handler(signal.SIGTERM, seen.append, "SIGTERM")
    swarm = Swarm(2, sys.argv[1])
    while not os.path.exists(os.path.join(sys.argv[1], "end")):
        child = await asyncio.create_subprocess_exec("sh", "-c", f"exit {len(codes) % 5}")
        codes.append(await child.wait())
        await asyncio.sleep(0.01)
    assert codes == [number % 5 for number in range(len(codes))], codes
    await asyncio.to_thread(swarm.stop)
    print(seen)
asyncio.run(main())
"""
TWISTED = """
import os, sys
from twisted.internet import reactor
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThread
from tests.hosts.programs.swarms.contender import Swarm
codes = []
class Child(ProcessProtocol):
    def processEnded(self, reason):
        codes.append(reason.value.exitCode)
        go_on()
def go_on():
    if os.path.exists(os.path.join(sys.argv[1], "end")):
        deferToThread(swarm.stop).addBoth(lambda _: reactor.stop())
    else:
        reactor.spawnProcess(Child(), "/bin/sh", ["sh", "-c", f"sleep 0.01; exit {len(codes) % 5}"], env=os.environ)
def begin():
    global swarm
    swarm = Swarm(2, sys.argv[1])
    go_on()
reactor.callWhenRunning(begin)
reactor.run()
assert codes == [number % 5 for number in range(len(codes))], codes
print([])
"""


@pytest.mark.case(SECTION, "a node is killed, and started again, beside children of the loop's own")
@pytest.mark.parametrize("loop", ["asyncio", "Twisted"])
def test_a_node_is_killed(contender, loop, tmp_path):
    if loop == "Twisted":
        pytest.importorskip("twisted")
    env = marked("loop")
    code = TWISTED if loop == "Twisted" else ASYNCIO
    with host(contender, python(code, str(tmp_path)), env=env) as process:
        kill_and_expect_another(tmp_path)
        (tmp_path / "end").touch()
        within(10, lambda: process.poll() is not None, "the host does not end")
        out, err = process.communicate()
    expect(process.returncode == 0, f"the host fails: {(err.strip().splitlines() or [''])[-1]}", err)
    expect(out == "[]\n", "the loop's own handler of SIGTERM is called", out)
    expect_nothing_left(env)
