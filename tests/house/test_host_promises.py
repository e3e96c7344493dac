"""What the code that runs in the host never does, read from the code itself: its sixth promise, and the eighth.

No signal goes to a number, nobody is waited for by number or at random, nothing is forked but the launcher, and what
is the process's own (handlers, timers, start methods) is left alone. The checker looks for every use of what would do
so, under whatever name; each exception is a place that is named, with the reason. `tests/hosts/test_proofs.py` shows
the same of a running host.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pidfdpool

PACKAGE = Path(pidfdpool.__file__).parent

SPAWNING = {"fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "startfile"}
SPAWNING |= {f"spawn{kind}" for kind in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}
SPAWNING |= {f"exec{kind}" for kind in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}
WAITING = {"wait", "wait3", "wait4", "waitpid", "waitid"}
OS = {"kill", "killpg", "abort", *SPAWNING, *WAITING}
SIGNAL = {
    "signal", "set_wakeup_fd", "siginterrupt", "setitimer", "alarm", "raise_signal", "pthread_kill",
    "sigwait", "sigwaitinfo", "sigtimedwait", "pause", "default_int_handler",
}  # fmt: skip
FAULTHANDLER = {"enable", "disable", "register", "unregister", "dump_traceback_later", "cancel_dump_traceback_later"}
FORBIDDEN = {
    "os": OS,
    "posix": OS,
    "signal": SIGNAL,
    "_signal": SIGNAL,
    "faulthandler": FAULTHANDLER,
    "subprocess": {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "native": {"fork", "posix_spawn", "set_signal"},
    "_posixsubprocess": {"fork_exec"},
    "pty": {"fork", "spawn"},
    "multiprocessing": {"Process", "Pool", "Manager", "set_start_method", "set_executable", "set_forkserver_preload"},
    "resource_tracker": {"ensure_running", "register", "unregister"},
    "forkserver": {"ensure_running", "set_forkserver_preload", "connect_to_new_process"},
}
# What C calls by these names does is forbidden as well, in whatever library ctypes may have found them.
FOREIGN = {*OS, *SIGNAL, "sigaction", "tgkill", "tkill", "clone", "clone3", "vfork", "sigqueue", "timer_create"} - {
    "pause",
    "abort",
}

# Files whose code runs in our own processes only, and the functions of other files of which that is true.
OURS = {"worker", "cli", "__main__"}
OUR_FILES = {"template/process.py", "template/server.py", "template/worker_fork.py", "template/guard.py"}
OUR_FILES |= {"template/descendants.py", "template/reaper.py", "template/tracker_process.py"}
OUR_FILES |= {"swarm/node_process.py", "swarm/node.py"}
EXCEPTIONS = {
    (
        "integrations/process_pool/installing.py",
        "install",
        "multiprocessing itself",
    ): "the caller asks for other pools in it",
    ("integrations/process_pool/script.py", "main", "exec"): "the script that the command line names",
    ("integrations/process_pool/script.py", "main", "compile"): "the same",
    (
        "template/launch.py",
        "_fork_in_this_thread",
        "native.fork",
    ): "the one fork of the host, which makes the launcher",
    ("template/launch.py", "_starting", "native.posix_spawn"): "the launcher, in the exec way",
    (
        "process/interruptible.py",
        "_has_frame_of_handler",
        "signal.default_int_handler",
    ): "what a handler is compared with",
    ("process/native.py", "fork", "posix.fork"): "a name for it, which is watched as well",
    ("process/native.py", "", "posix.posix_spawn"): "a name for it, which is watched as well",
    ("process/native.py", "", "_signal.signal"): "a name for it, which is watched as well",
    ("pidfd/errors.py", "signal_name", "_signal itself"): "for the names of its numbers",
    (
        "pidfd/sentinel.py",
        "reap",
        "os.waitid",
    ): "the launcher, without a pidfd, and what is the template's: own children",
    ("pidfd/sentinel.py", "reap", "os.waitpid"): "the same, where waitid is refused",
    ("pidfd/handle.py", "_status_from_waitid", "os.waitid"): "P_PIDFD",
    ("pidfd/handle.py", "_is_pidfd", "os.waitid"): "P_PIDFD, and WNOWAIT",
    ("pidfd/capability.py", "Capabilities.waitid", "os.waitid"): "P_PIDFD, of the caller itself",
    ("pidfd/sentinel.py", "ChildHandle.send_signal", "os.kill"): "in the template, an unreaped child of its own",
    ("pidfd/sentinel.py", "ChildHandle.send_signal", "os.killpg"): "in the template, an unreaped child of its own",
    ("pidfd/sentinel.py", "ChildHandle._is_unreaped", "os.waitid"): "in the template, a child of its own",
    ("pidfd/sentinel.py", "ChildHandle.alive", "os.waitid"): "in the template, a child of its own",
    ("process/hygiene.py", "reset_signals", "native.set_signal"): "in processes that were just forked",
    ("process/hygiene.py", "reset_signals", "signal.set_wakeup_fd"): "in processes that were just forked",
    (
        "process/hygiene.py",
        "reset_signals",
        "faulthandler itself",
    ): "in processes that were just forked, to unregister",
    ("process/hygiene.py", "start_faulthandler", "faulthandler.enable"): "in workers",
    ("records.py", "_constructor", "exec"): "what it runs is of its own making",
    ("records.py", "_constructor", "compile"): "what it runs is of its own making",
    ("serialization/reconstructors.py", "make_lazy_import", "exec"): "a statement of its own making",
    ("serialization/reconstructors.py", "make_type_alias", "exec"): "a statement of its own making",
    ("serialization/reconstructors.py", "make_type_alias", "eval"): "a call of its own making",
    ("transport/black_box.py", "record_stacks", "faulthandler.register"): "in workers",
    ("transport/black_box.py", "stop_recording_stacks", "faulthandler.unregister"): "in what workers fork",
}
BY_PIDFD = {place for place, reason in EXCEPTIONS.items() if reason.startswith("P_PIDFD")}
FOREIGN_LOADERS = {"ctypes", "_ctypes"}
# the only files that may load foreign functions
CTYPES = {
    "process/native.py",
    "pidfd/prctl.py",
    "pidfd/receiver.py",
    "pidfd/siginfo.py",
    "transport/segments/memory.py",
}
INDIRECT = {"eval", "exec", "compile"}


class Checker(ast.NodeVisitor):
    """Collects uses of what is forbidden: (function, name, line)."""

    def __init__(self, *, ctypes: bool = False) -> None:
        self.found: list[tuple[str, str, int]] = []
        self._ctypes = ctypes
        self._function: list[str] = []
        self._modules = [dict[str, str]()]  # by scope: which names mean which watched module; "": something else

    # ---- names -------------------------------------------------------------------------------------------------

    def _note(self, name: str, node: ast.AST) -> None:
        self.found.append((".".join(self._function), name, node.lineno))

    def _module(self, name: str) -> str | None:
        for scope in reversed(self._modules):
            if name in scope:
                return scope[name] or None
        return None

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            last = alias.name.rpartition(".")[2]
            if alias.name in FOREIGN_LOADERS and not self._ctypes:
                self._note(alias.name, node)
            if last in FORBIDDEN and (alias.asname or "." not in alias.name):
                self._modules[-1][alias.asname or alias.name] = last

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = (node.module or "").rpartition(".")[2]
        if module in FOREIGN_LOADERS and not self._ctypes:
            self._note(module, node)
        for alias in node.names:
            if module in FORBIDDEN and (alias.name == "*" or alias.name in FORBIDDEN[module]):
                self._note(f"{module}.{alias.name}", node)
            if alias.name in FORBIDDEN:
                self._modules[-1][alias.asname or alias.name] = alias.name

    def _enter(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef) -> None:
        """Visit a scope in which names may mean something else: arguments, and what is assigned there."""
        scope = dict[str, str]()
        if not isinstance(node, ast.ClassDef):
            arguments = node.args
            for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
                scope[argument.arg] = ""
            self._modules.append(scope)
        names = [] if isinstance(node, ast.Lambda) else [node.name]
        self._function += names
        self.generic_visit(node)
        del self._function[len(self._function) - len(names) :]
        if not isinstance(node, ast.ClassDef):
            self._modules.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = visit_ClassDef = _enter  # noqa: N815

    # ---- uses --------------------------------------------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = node.value
        module = None
        if isinstance(owner, ast.Name):
            module = self._module(owner.id)
        elif isinstance(owner, ast.Attribute) and owner.attr in FORBIDDEN:
            module = owner.attr  # reached through another module
        if module is not None:
            if node.attr in FORBIDDEN[module] or node.attr == "__dict__":
                self._note(f"{module}.{node.attr}", node)
        elif self._ctypes and node.attr in FOREIGN:
            self._note(f"ctypes.{node.attr}", node)
        if not isinstance(owner, ast.Name):
            self.visit(owner)

    def visit_Name(self, node: ast.Name) -> None:
        module = self._module(node.id)
        if module is not None and isinstance(node.ctx, ast.Load):
            self._note(f"{module} itself", node)  # assigned, passed, or asked for attributes by name
        elif module is not None:
            self._modules[-1][node.id] = ""
        elif node.id in INDIRECT and isinstance(node.ctx, ast.Load):
            self._note(node.id, node)

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
        if name in ("import_module", "__import__", "get"):
            self._look_at_module_names(node.args[:1], node)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if getattr(node.value, "attr", None) == "modules":
            self._look_at_module_names([node.slice], node)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if self._ctypes and node.value in FOREIGN:
            self._note(f"ctypes.{node.value}", node)  # getattr(libc, "kill"), libc["kill"]

    def _look_at_module_names(self, names: list[ast.expr], node: ast.AST) -> None:
        for name in names:
            if isinstance(name, ast.Constant) and name.value in {*FORBIDDEN, *FOREIGN_LOADERS}:
                self._note(f"{name.value} itself", node)


def violations(source: str, *, ctypes: bool = False) -> list[tuple[str, str, int]]:
    checker = Checker(ctypes=ctypes)
    checker.visit(ast.parse(source))
    return checker.found


def host_files() -> list[str]:
    """Return the files of which at least a part runs in the host."""
    names = [str(path.relative_to(PACKAGE)) for path in sorted(PACKAGE.rglob("*.py"))]
    return [name for name in names if name.split("/")[0].removesuffix(".py") not in OURS and name not in OUR_FILES]


@pytest.mark.parametrize("name", host_files())
def test_the_host_half_never_uses_what_it_promises_not_to(name):
    found = violations((PACKAGE / name).read_text(), ctypes=name in CTYPES)
    bad = [
        f"{name}:{line}: {what} in {function or 'the module'}"
        for function, what, line in found
        if (name, function, what) not in EXCEPTIONS
    ]
    assert not bad


def test_every_exception_is_used():
    used = {
        (name, function, what)
        for name in host_files()
        for function, what, _ in violations((PACKAGE / name).read_text(), ctypes=name in CTYPES)
    }
    assert set(EXCEPTIONS) <= used


@pytest.mark.parametrize("place", sorted(BY_PIDFD), ids=" ".join)
def test_waits_that_are_said_to_be_by_pidfd_are(place):
    name, function, _ = place
    tree = ast.parse((PACKAGE / name).read_text())
    (found,) = [node for node in ast.walk(tree) if getattr(node, "name", None) == function.split(".")[-1]]
    calls = [
        node for node in ast.walk(found)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "waitid"
    ]  # fmt: skip
    assert calls
    for call in calls:
        assert ast.unparse(call.args[0]) == "os.P_PIDFD"


PLANTED = {
    "os.kill(pid, 9)": "os.kill",
    "os.killpg(pid, 9)": "os.killpg",
    "from os import kill": "os.kill",
    "from os import kill as end": "os.kill",
    "from os import *": "os.*",
    "import os as system\nsystem.kill(1, 9)": "os.kill",
    "import posix\nposix.waitpid(-1, 0)": "posix.waitpid",
    "def f():\n    import os as o\n    o.wait()": "os.wait",
    "from threading import os\nos.fork()": "os.fork",
    "import pidfdpool.pidfd.handle as handle\nhandle.os.kill(1, 9)": "os.kill",
    "o = os": "os itself",
    "getattr(os, 'kill')(1, 9)": "os itself",
    "getattr(os, name)(1, 9)": "os itself",
    "vars(os)['kill'](1, 9)": "os itself",
    "os.__dict__['kill'](1, 9)": "os.__dict__",
    "import sys\nsys.modules['os'].kill(1, 9)": "os itself",
    "import sys\nsys.modules.get('signal').alarm(1)": "signal itself",
    "import sys\nsys.modules.get('faulthandler').enable()": "faulthandler itself",
    "__import__('os').kill(1, 9)": "os itself",
    "from importlib import import_module\nimport_module('signal').alarm(1)": "signal itself",
    "end = os.kill": "os.kill",
    "os.waitid(os.P_ALL, 0, os.WEXITED)": "os.waitid",
    "os.waitid(os.P_PIDFD, 0, os.WEXITED)": "os.waitid",  # also this only where it is named
    "os.wait4(-1, 0)": "os.wait4",
    "os.system('true')": "os.system",
    "os.execv('/bin/true', [])": "os.execv",
    "signal.signal(17, print)": "signal.signal",
    "from signal import signal": "signal.signal",
    "signal.set_wakeup_fd(-1)": "signal.set_wakeup_fd",
    "signal.siginterrupt(17, True)": "signal.siginterrupt",
    "signal.setitimer(0, 1)": "signal.setitimer",
    "signal.pthread_kill(1, 9)": "signal.pthread_kill",
    "signal.raise_signal(9)": "signal.raise_signal",
    "import faulthandler\nfaulthandler.enable()": "faulthandler.enable",
    "import subprocess\nsubprocess.run(['true'])": "subprocess.run",
    "from subprocess import Popen": "subprocess.Popen",
    "import multiprocessing\nmultiprocessing.set_start_method('fork')": "multiprocessing.set_start_method",
    "from multiprocessing import resource_tracker as t\nt.ensure_running()": "resource_tracker.ensure_running",
    "import ctypes": "ctypes",
    "import _ctypes": "_ctypes",
    "from ctypes import CDLL": "ctypes",
    "exec('import os')": "exec",
}
FOREIGN_PLANTED = {
    "libc.kill(1, 9)": "ctypes.kill",
    "libc['waitpid'](-1, None, 0)": "ctypes.waitpid",
    "getattr(libc, 'sigaction')": "ctypes.sigaction",
    "libc.fork()": "ctypes.fork",
}


@pytest.mark.parametrize("code", PLANTED)
def test_the_checker_sees_what_is_planted(code):
    before = "" if code.startswith(("from threading", "import posix")) else "import os, signal\n"
    assert PLANTED[code] in [what for _, what, _ in violations(before + code)]


@pytest.mark.parametrize("code", FOREIGN_PLANTED)
def test_the_checker_sees_what_is_called_through_ctypes(code):
    found = violations(f"import ctypes\nlibc = ctypes.CDLL(None)\n{code}", ctypes=True)
    assert [what for _, what, _ in found] == [FOREIGN_PLANTED[code]]


@pytest.mark.parametrize(
    "code",
    [
        "import signal\ndef kill(self, signal):\n    self.signal(signal)\n    return signal",
        "import os\nos.getpid()\npool.kill()\nlink.signal(9)",
        "import signal\nsignal.pidfd_send_signal(3, 9)\nsignal.pthread_sigmask(signal.SIG_BLOCK, ())",
        "from subprocess import _args_from_interpreter_flags",
    ],
)
def test_the_checker_leaves_the_innocent_alone(code):
    assert violations(code) == []
