"""The host's end of the template.

Any thread may write to it, under the pool's lock. Only the pool thread reads from it, and closes it.
"""

from __future__ import annotations

import logging
import signal
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool.loop import tracker_requests
from pidfdpool.loop.links import Link
from pidfdpool.pidfd import Pidfd, PidfdDenied
from pidfdpool.process import safe_logging
from pidfdpool.transport import framing

if TYPE_CHECKING:
    from pidfdpool.loop.poller import Poller, Watch
    from pidfdpool.template.connection import TemplateConnection
    from pidfdpool.transport.framing import Buffer, Frame

_log = logging.getLogger("pidfdpool")


class TemplateLink(Link):
    """The template, from its first frame until it is lost."""

    def __init__(self, end: TemplateConnection, poller: Poller) -> None:
        super().__init__(end.channel, poller)
        self.end = end
        self._requests_watch: Watch | None = None

    def watch_requests(self, lock: Any) -> None:
        """Have what template and workers ask for answered by the pool thread. lock: the pool's."""
        callback = partial(self._answer, lock)
        self._requests_watch = self._poller.watch(self.end.tracker_requests.fileno(), callback)

    def _answer(self, lock: Any, _mask: int) -> None:
        def start(read_end: int) -> None:
            with lock:
                self.request(framing.encode(framing.START_TRACKER), read_end)

        tracker_requests.answer(self.end.tracker_requests, start)

    def read(self, _receive: object = None) -> list[Frame]:
        """Return what frames there are.

        A template cannot work if it has closed its channel, or if something else writes into it. It is killed, and
        its end is noticed like any other.
        """
        frames: list[Frame] = []
        try:
            frames = super().read()  # type: ignore[assignment]
            fault = self.source.error
        except framing.ProtocolError as error:
            fault = error
        if fault is not None and self.reading:
            message = "the template (pid %s) wrote %s; it is killed"
            safe_logging.log(_log, logging.WARNING, message, self.end.pid, fault)
            self.stop_reading()
        if not self.reading:
            self.kill()
        return frames

    def request(self, pieces: list[Buffer], descriptor: int | None = None) -> None:
        """Send a request. If the template is gone, its pidfd tells, and the request is dropped with it."""
        with suppress(OSError):
            self.post(pieces, descriptor)

    def resume(self) -> None:
        """Let a stopped template go on. Where the host cannot signal it, the next request does."""
        if isinstance(self.handle, Pidfd):
            super().resume()

    def want_script(self) -> None:
        """Have the template run the script again, unless it was told that at its start, or before."""
        if not self.end.runs_script:
            self.end.runs_script = True
            self.request(framing.encode(framing.RUN_SCRIPT))

    def kill(self) -> None:
        """Kill a template that does not answer.

        Without pidfds the host cannot, nor can a host that has changed its user. Then the channel is shut down, and
        the template exits when it reads that.
        """
        with suppress(OSError):
            if isinstance(self.handle, Pidfd):
                with suppress(PidfdDenied):
                    self.handle.send_signal(signal.SIGKILL)
                    return
            self.channel.shut_down()
            self.end.close_lifeline()

    def close(self) -> None:
        """Forget and close everything. In the pool thread, under the lock."""
        self._poller.forget(self._requests_watch)
        super().close()
        self.end.close()

    def close_in_forked_child(self) -> None:
        """Close the copies of a forked process."""
        self.end.close_in_forked_child()
