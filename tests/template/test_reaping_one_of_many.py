"""Which of its workers the template looks at when one of them has ended."""

from __future__ import annotations

import json

from tests.conditions import run_python

TEMPLATE = """
import json, os, select
from pidfdpool.pidfd import Pidfd
from pidfdpool.template.reaper import Reaper
from pidfdpool.template.worker_fork import LivingWorkers, WorkerProcess

looked_at = []

class Watched:
    def __init__(self, handle):
        self.handle, self.pid = handle, handle.pid
        self.close, self.fileno, self.send_signal = handle.close, handle.fileno, handle.send_signal
    def alive(self):
        looked_at.append(self.pid)
        return self.handle.alive()

def forked():
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        os.read(gate[0], 1)
        os._exit(7)
    os.setpgid(pid, pid)
    return WorkerProcess(len(workers.by_pid), 0, Watched(Pidfd.open(pid)), mark=pid)

def readable(worker):
    fd = worker.handle.fileno()
    assert fd in dict(epoll.poll(20))
    return [fd]

gate = os.pipe()
workers, epoll, sent = LivingWorkers(None), select.epoll(), []
quiet, _ = os.pipe2(os.O_NONBLOCK)
reaper = Reaper(workers, epoll, quiet, sent.append)
all_of_them = [forked() for _ in range(20)]
for worker in all_of_them:
    workers.add(worker)
    epoll.register(worker.handle.fileno(), select.EPOLLIN)
victim = all_of_them[11]
"""
END = """
print(json.dumps([len(sent), len(looked_at), len(workers.by_pid), len(workers.marks - {None})]))
os.write(gate[1], b"." * 20)
"""


def outcome(code):
    done = run_python(f"{TEMPLATE}\n{code}\n{END}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nobody_looks_at_the_workers_that_live():
    assert outcome(
        "os.kill(victim.handle.pid, 9)\n"
        "reaper.reap_workers(readable(victim))\n"
        "assert victim.handle.pid not in workers.by_pid\n"
    ) == [1, 0, 19, 19]


def test_a_worker_that_a_thread_of_the_preload_has_waited_for_is_found_by_its_handle():
    assert outcome(
        "os.kill(victim.handle.pid, 9)\n"
        "fds = readable(victim)\n"
        "os.waitpid(victim.handle.pid, 0)\n"
        "reaper.reap_workers(fds)\n"
        "assert victim.handle.pid not in workers.by_pid\n"
    ) == [0, 1, 19, 19]


def test_a_descriptor_that_is_another_worker_s_by_now_does_not_mislead():
    assert outcome(
        "os.kill(victim.handle.pid, 9)\n"
        "fds = readable(victim)\n"
        "reaper.on_sigchld()\n"
        "successor = forked()\n"
        "assert successor.handle.fileno() == fds[0]\n"
        "workers.add(successor)\n"
        "reaper.reap_workers(fds)\n"
        "assert successor.handle.pid in workers.by_pid\n"
    ) == [1, 1, 20, 20]


def test_a_descriptor_that_is_nobody_s_by_now_is_passed_over():
    assert outcome(
        "os.kill(victim.handle.pid, 9)\nfds = readable(victim)\nreaper.on_sigchld()\nreaper.reap_workers(fds)\n"
    ) == [1, 0, 19, 19]
