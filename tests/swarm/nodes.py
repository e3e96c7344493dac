"""Targets of nodes for the tests. What they are told to do is in their arguments, and what they do in files."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

from pidfdpool import PidfdPoolExecutor
from tests import calls


def serve(node):
    """Do what is asked of a node, and nothing else."""
    while not node.stopping.wait(0.02):
        node.healthy()


def report_once(node):
    node.healthy()
    node.stopping.wait()


def write_and_serve(node, folder, *more):
    """Note who this is, and serve."""
    with open(os.path.join(folder, f"{node.id}-{node.attempt}"), "w") as file:
        file.write(repr((os.getpid(), more)))
    serve(node)


def never_report(node):
    node.stopping.wait()


def ignore_everything(node):
    """Report once, and then neither look at what is asked nor heed SIGTERM; nor does a child."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "1000"])
    node.healthy()
    while True:
        time.sleep(10)


def hang_in_c(node):
    """Stay in native code, with the GIL held, and SIGTERM ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    node.healthy()
    ctypes.PyDLL(None).sleep(1000)


def hang_if_first(node):
    node.healthy()
    if node.attempt == 1:
        time.sleep(1000)
    serve(node)


def stop_itself(node):
    """Be stopped, as by SIGSTOP."""
    node.healthy()
    os.kill(os.getpid(), signal.SIGSTOP)
    serve(node)


def fail_at_once(node):
    raise ValueError(f"attempt {node.attempt} fails")


def fail_until(node, attempt):
    if node.attempt < attempt:
        sys.exit(3)
    serve(node)


def end_at_once(node):
    return "done"


def end_when_asked(node, path):
    node.healthy()
    while not os.path.exists(f"{path}.{node.id}"):
        node.healthy()
        time.sleep(0.005)


def say_unhealthy(node, reason):
    node.healthy()
    if node.attempt == 1:
        node.unhealthy(reason)
    serve(node)


def grow(node):
    """Take 60 MB in the first attempt."""
    node.healthy()
    taken = bytearray(60 << 20) if node.attempt == 1 else b""
    serve(node)
    return taken


def fork_away(node, path):
    """Leave a process behind that is in another session and has lost its parent."""
    if node.attempt == 1:
        reader, writer = os.pipe()
        if not os.fork():
            os.setsid()
            if os.fork():
                os._exit(0)
            os.write(writer, str(os.getpid()).encode())
            time.sleep(1000)
            os._exit(0)
        with open(path, "w") as file:
            file.write(os.read(reader, 20).decode())
    serve(node)


def stop_by_signals(node, path):
    """Have a handler of its own for SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    node.healthy()
    while True:
        time.sleep(10)


def heed_nothing_but_sigterm(node):
    """Never look at node.stopping: the second way of being told to stop ends it."""
    node.healthy()
    while True:
        time.sleep(10)


async def serve_async(node):
    while not await node.stopping.wait_async(0.02):
        node.healthy()


async def many_wait(node, path):
    node.healthy()
    found = await asyncio.gather(*(node.stopping.wait_async(30) for _ in range(5)))
    with open(path, "w") as file:
        file.write(repr(found))


def watch_by_descriptor(node, path):
    import selectors

    node.healthy()
    with selectors.DefaultSelector() as selector:
        selector.register(node.stopping.fileno(), selectors.EVENT_READ)
        ready = selector.select(30)
    with open(path, "w") as file:
        file.write(repr((len(ready), node.stopping.is_set(), node.quiet.is_set())))


def go_quiet(node, path):
    while not node.stopping.is_set():
        node.healthy()
        if node.quiet.wait(0.02):
            break
    with open(f"{path}.{node.id}", "w"):
        pass
    node.stopping.wait()


def use_everything(node, path):
    """Use a pool, a thread, and a subprocess."""
    node.healthy()
    with PidfdPoolExecutor(1) as pool:
        doubled = pool.submit(calls.double, 21).result()
    threads = []
    thread = threading.Thread(target=lambda: threads.append(threading.current_thread() is not None))
    thread.start()
    thread.join()
    printed = subprocess.run(["echo", "hello"], capture_output=True, text=True, check=True).stdout
    with open(path, "w") as file:
        file.write(repr((doubled, threads, printed, node.orphaned())))
    serve(node)


def receive(node, path):
    with node.messages() as receiver:
        node.healthy()
        received = []
        while len(received) < 3:
            message = receiver.receive(20)
            received.append(message and (message.number, message.value))
    with open(path, "w") as file:
        file.write(repr(received))


def look_in_child(node, path):
    """Try to report from a process that the node forks."""
    node.healthy()
    if not (pid := os.fork()):
        found = []
        for report in (node.healthy, lambda: node.unhealthy("x")):
            try:
                report()
                found.append("reported")
            except RuntimeError as error:
                found.append(str(error))
        with open(path, "w") as file:
            file.write(repr((found, node.stopping.is_set())))
        os._exit(0)
    os.waitpid(pid, 0)
    serve(node)


class Unloadable:
    """Pickles, and cannot be rebuilt in a node."""

    def __reduce__(self):
        return _fail_to_load, (os.getpid(),)


def _fail_to_load(pid):
    if pid != os.getpid():
        raise ImportError("there is no such thing in a node")
    return Unloadable()


def log(node):
    """Log at each turn, from a thread as well."""
    import logging

    logger = logging.getLogger("of.nodes")
    logger.info("node %d begins", node.id)
    thread = threading.Thread(target=logger.warning, args=("from a thread of node %d", node.id))
    thread.start()
    thread.join()
    logger.debug("not wanted")
    serve(node)
    logger.info("node %d ends", node.id)


def exit_with(node, code):
    node.healthy()
    sys.exit(code)


def babble(node):
    """Write into everything that is a socket, which the node's channel is one of."""
    node.healthy()
    if node.attempt == 1:
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    os.write(int(name), b"nothing that a node says" * 10)
            except OSError:
                continue
    serve(node)


def close_all_descriptors(node):
    node.healthy()
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    while not node.stopping.wait(0.05):
        pass


def close_all_descriptors_and_sleep(node):
    node.healthy()
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    time.sleep(1000)


def execute_sleep(node):
    node.healthy()
    os.execvp("sleep", ["sleep", "1000"])


def fail_as_the_third(node):
    if node.id == 2:
        sys.exit(3)
    serve(node)
