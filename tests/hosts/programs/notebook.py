"""The front end of a notebook: has a Jupyter kernel of its own and does with it what it reads, a line of JSON each.

It stands for the server between a browser and its kernel, and speaks to the kernel as any front end does.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import time

from jupyter_client.manager import KernelManager


class FrontEnd:
    def __init__(self) -> None:
        self.manager = KernelManager(kernel_name="python3", shutdown_wait_time=5.0)
        self.manager.start_kernel()
        self._connect()

    def _connect(self) -> None:
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self._running = ""

    def pid(self) -> int:
        return self.manager.provisioner.pid

    def begin(self, cell: str) -> None:
        """Execute a cell, without waiting for its end."""
        self._running = self.client.execute(cell)

    def finish(self, seconds: float) -> dict[str, object]:
        """Wait for the end of the running cell and return what the browser would show."""
        shown = {"stdout": "", "stderr": "", "error": "", "traceback": "", "ended": False}
        deadline = time.monotonic() + seconds
        while not shown["ended"] and time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=0.1)
            except queue.Empty:
                continue
            self._show(message, shown)
        return shown

    def _show(self, message: dict[str, dict[str, str]], shown: dict[str, object]) -> None:
        content, kind = message["content"], message["msg_type"]
        if kind == "stream":  # also of other cells: what workers print belongs to none
            shown[content["name"]] += content["text"]
        elif message["parent_header"].get("msg_id") != self._running:
            return
        elif kind == "error":
            shown["error"] = f"{content['ename']}: {content['evalue']}"
            shown["traceback"] = "\n".join(content["traceback"])
        elif kind == "status" and content["execution_state"] == "idle":
            shown["ended"] = True

    def execute(self, cell: str, seconds: float) -> dict[str, object]:
        self.begin(cell)
        return self.finish(seconds)

    def interrupt(self) -> None:
        """Do as the button with the square."""
        self.manager.interrupt_kernel()

    def restart(self) -> None:
        """Do as the button with the arrow."""
        self.client.stop_channels()
        self.manager.restart_kernel()
        self._connect()

    def shutdown(self, now: bool) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=now)


def main() -> None:
    # Answers go to the standard output of this process; what the kernel's processes say there goes to a log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ.pop("PYTEST_CURRENT_TEST", None)  # by which a kernel takes itself for a test's, and shows less
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # where it is ignored, kernels would ignore it, too
    front_end = FrontEnd()
    try:
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(getattr(front_end, name)(*arguments)), file=answers, flush=True)
    finally:
        front_end.shutdown(now=True)


if __name__ == "__main__":
    main()
