"""A program with a main loop of a window system's or GLib's: its own timers and children, and a pool's answers.

Futures tell the loop by their callbacks, which run in another thread, as its user would do. Arguments: which loop,
and `stay` to compute until somebody ends it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tests.hosts.far.programs.staying import begin, told
from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor
from tests.hosts.programs.trapped import OURS, expect, tell

CODE = 7  # how the loop's own child exits


class PyQt5:
    """A window of Qt's; threads tell the loop by a signal of an object, and QProcess starts the child."""

    def __init__(self) -> None:
        from PyQt5 import QtCore, QtWidgets

        class Teller(QtCore.QObject):
            told = QtCore.pyqtSignal(object)

        self._core = QtCore
        self._app = QtWidgets.QApplication(sys.argv[:1])
        self._window = QtWidgets.QLabel("at work")
        self._window.show()
        self._teller = Teller()
        self._teller.told.connect(lambda call: call())
        self.run, self.quit = self._app.exec_, self._app.quit
        self.tell = self._teller.told.emit

    def every(self, milliseconds: int, call: Callable[[], Any]) -> None:
        self._timer = self._core.QTimer()
        self._timer.timeout.connect(call)
        self._timer.start(milliseconds)

    def child(self, command: Sequence[str], ended: Callable[[int], Any]) -> None:
        self._process = self._core.QProcess()
        self._process.finished.connect(lambda code, _: ended(code))
        self._process.start(command[0], list(command[1:]))


class PySide2(PyQt5):
    """The other binding, without a window."""

    def __init__(self) -> None:
        from PySide2 import QtCore

        class Teller(QtCore.QObject):
            told = QtCore.Signal(object)

        self._core = QtCore
        self._app = QtCore.QCoreApplication(sys.argv[:1])
        self._teller = Teller()
        self._teller.told.connect(lambda call: call())
        self.run, self.quit = self._app.exec_, self._app.quit
        self.tell = self._teller.told.emit


class Tk:
    """A window of Tk's, which has no word for threads and children: a timer looks for what they have left."""

    def __init__(self) -> None:
        import queue
        import tkinter

        self._root = tkinter.Tk()
        tkinter.Label(self._root, text="at work").pack()
        self._told: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self.run, self.quit, self.tell = self._root.mainloop, self._root.destroy, self._told.put
        self.every(5, self._look)

    def _look(self) -> None:
        while not self._told.empty():
            self._told.get()()

    def every(self, milliseconds: int, call: Callable[[], Any]) -> None:
        self._root.after(milliseconds, self._again, milliseconds, call)

    def _again(self, milliseconds: int, call: Callable[[], Any]) -> None:
        self._root.after(milliseconds, self._again, milliseconds, call)
        call()

    def child(self, command: Sequence[str], ended: Callable[[int], Any]) -> None:
        process = subprocess.Popen(command)

        def look() -> None:
            if process.returncode is None and process.poll() is not None:
                ended(process.returncode)

        self.every(5, look)


class GLib:
    """GLib's main loop: sources that any thread may add, and a watch for the child."""

    def __init__(self) -> None:
        from gi.repository import GLib

        self._glib = GLib
        self._loop = GLib.MainLoop()
        self.run, self.quit = self._loop.run, self._loop.quit

    def tell(self, call: Callable[[], Any]) -> None:
        self._glib.idle_add(lambda: call() and False)

    def every(self, milliseconds: int, call: Callable[[], Any]) -> None:
        self._glib.timeout_add(milliseconds, lambda: call() or True)

    def child(self, command: Sequence[str], ended: Callable[[int], Any]) -> None:
        pid, *_ = self._glib.spawn_async(list(command), flags=self._glib.SpawnFlags.DO_NOT_REAP_CHILD)
        self._glib.child_watch_add(self._glib.PRIORITY_DEFAULT, pid, lambda _, status: ended(status >> 8))


LOOPS = {"PyQt5": PyQt5, "PySide2": PySide2, "Tk": Tk, "GLib": GLib}


class Program:
    """What the program does, step by step; each begins when the loop has heard of all that the last one wanted."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.pool = ProcessPoolExecutor(2)
        self.ticks = 0
        self.codes: list[int] = []
        self.computed = False
        loop.every(5, self._tick)

    def _tick(self) -> None:
        self.ticks += 1

    def ask(self, calls: Sequence[tuple[Any, ...]], then: Callable[[list[Any]], Any]) -> None:
        """Submit these calls; call `then` in the loop with their results, or the errors, in no order."""
        got: list[Any] = []

        def heard(future: Future[Any]) -> None:
            got.append(future.exception() or future.result())
            if len(got) == len(calls):
                then(got)

        for call in calls:
            future = self.pool.submit(*call)
            future.add_done_callback(lambda future: self.loop.tell(lambda: heard(future)))

    def begin(self) -> None:
        self.loop.child(["/bin/sh", "-c", f"sleep 0.2; exit {CODE}"], self.child_ended)
        self.ask([(tasks.double, number) for number in range(20)], self.crash)

    def crash(self, doubles: list[Any]) -> None:
        expect(sorted(doubles) == list(range(0, 40, 2)), "a wrong result", doubles)
        self.ask([(tasks.leave, 3)], self.go_on)

    def go_on(self, errors: list[Any]) -> None:
        expect(isinstance(errors[0], BrokenProcessPool), "the crash is not told", errors)
        if not OURS:  # is lost with its worker, as its user knows
            self.pool.shutdown()
            self.pool = ProcessPoolExecutor(2)
        before = self.ticks
        self.ask([(tasks.sleep, 0.5), (tasks.double, 21)], lambda _: self.end(before))

    def end(self, before: int) -> None:
        expect(self.ticks - before > 5, "the loop stands still while a task runs", self.ticks - before)
        self.computed = True
        self.finish()

    def child_ended(self, code: int) -> None:
        self.codes.append(code)
        self.finish()

    def finish(self) -> None:
        if self.computed and self.codes:
            expect(self.codes == [CODE], "the loop is wrong about the end of its own child", self.codes)
            tell("done")
            self.loop.quit()


def stay(loop: Any) -> None:
    """Have the pool compute for ever, and run the loop meanwhile."""
    pool = ProcessPoolExecutor(2)
    files = begin(pool)

    def look() -> None:
        if files and told(files):
            files.clear()

    loop.every(5, look)
    loop.run()


def main(name: str, what: str = "work") -> None:
    loop = LOOPS[name]()
    if what == "stay":
        stay(loop)
        return
    program = Program(loop)
    program.begin()
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
