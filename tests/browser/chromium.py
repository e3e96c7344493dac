"""A small client of Chromium's DevTools protocol, over the pipe that `--remote-debugging-pipe` opens.

A `Browser` is one headless Chromium with a profile of its own; `open` gives a `Page` of it. A page keeps what it has
asked the network for (`requests`) and what went wrong in it (`problems`: errors on the console, exceptions, failed
requests). Names are resolved to nothing, so that no request can leave this machine.

All calls are made by one thread, and wait for the answer, at most `SECONDS`.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium")
SECONDS = 30.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)
_KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, "Home": 36,
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}  # fmt: skip
_READ_SIZE = 1 << 20


class Refused(AssertionError):
    """Chromium has not done what it was asked for."""


class Browser:
    """A headless Chromium. `profile` is a folder that does not exist or is empty."""

    def __init__(self, profile: Path) -> None:
        assert PROGRAM is not None
        # The browser reads commands from descriptor 3 and writes to 4, so ours have to be others.
        its_input, self._output = _high_pipe()
        self._input, its_output = _high_pipe()
        # Without the mark of the tests' processes: its own come and go, while one test is over and the next begins.
        environment = {"PATH": os.environ["PATH"], "HOME": str(profile), "LANG": "C.UTF-8"}
        line = [PROGRAM, *_FLAGS, f"--user-data-dir={profile / 'profile'}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{its_input} 4>&{its_output} {its_input}<&- {its_output}>&-', "bash", *line],
            pass_fds=(its_input, its_output),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        os.close(its_input)
        os.close(its_output)
        self._received = b""
        self._number = 0
        self._pages: dict[str, Page] = {}

    def open(self, url: str, width: int = 1280, height: int = 900, *, dark: bool = False) -> Page:
        """Open a page in a window of that size, in CSS pixels, and wait until it is loaded."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, target, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", {"features": [scheme]})
        page.resize(width, height)
        page.go(url)
        return page

    def call(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> Any:
        """Call a method of the protocol; return its result."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session
        rest = memoryview(json.dumps(message).encode() + b"\0")
        while rest:
            rest = rest[os.write(self._output, rest) :]
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise Refused(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self, deadline: float, method: str) -> dict[str, Any]:
        """Return the next message; the page that an event belongs to takes note of it."""
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._input], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"Chromium does not answer: {method}"
            data = os.read(self._input, _READ_SIZE)
            assert data, f"Chromium has ended: {method}"
            self._received += data
        text, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        page = self._pages.get(message.get("sessionId", ""))
        if page is not None and "method" in message:
            page.note(message["method"], message["params"])
        return message

    def forget(self, page: Page) -> None:
        """Close a page."""
        self.call("Target.closeTarget", {"targetId": page.target})
        del self._pages[page.session]

    def close(self) -> None:
        """End the browser, and wait for its end."""
        os.close(self._output)  # without its client it ends
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._input)


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self.target = target
        self.session = session
        self.requests: list[str] = []
        self.problems: list[str] = []

    def note(self, method: str, parameters: dict[str, Any]) -> None:
        """Take note of an event."""
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Network.loadingFailed":
            self.problems.append(parameters["errorText"])
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in {"error", "warning", "assert"}:
            self.problems.append(" ".join(str(each.get("value")) for each in parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in {"error", "warning"}:
            self.problems.append(parameters["entry"]["text"])

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> Any:
        """Call a method of the protocol for this page; return its result."""
        return self._browser.call(method, parameters, self.session)

    def go(self, url: str) -> None:
        """Go to an address, and wait until the page is loaded."""
        told = self.call("Page.navigate", {"url": url})
        assert not told.get("errorText"), f"{url}: {told['errorText']}"
        self.wait("document.readyState == 'complete' && location.href != 'about:blank'")

    def resize(self, width: int, height: int) -> None:
        """Give the window a size in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", size)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, as JSON has it; a promise is awaited."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        told = self.call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Wait until an expression is true, perhaps in the page that comes next; return its value."""
        deadline = time.monotonic() + SECONDS
        while True:
            with suppress(Refused):  # Chromium evaluates nothing while it goes from one page to another
                if value := self.evaluate(expression):
                    return value
            assert time.monotonic() < deadline, f"not true after {SECONDS} s: {expression}"
            time.sleep(0.01)

    def text(self, selector: str = "body") -> str:
        """Return the text that is shown of the first element that the selector finds."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def texts(self, selector: str) -> list[str]:
        """Return the text that is shown of each element that the selector finds."""
        found = self.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map(each => each.innerText)")
        return [str(each) for each in found]

    def rows(self, selector: str) -> list[list[str]]:
        """Return the texts of a table's body, by rows."""
        query = json.dumps(f"{selector} tbody tr")
        rows = (
            f"[...document.querySelectorAll({query})].map(row => [...row.cells].map(each => each.innerText.trim()))"
        )
        return list(self.evaluate(rows))

    def center(self, selector: str) -> tuple[float, float]:
        """Scroll an element into view, and return the middle of it."""
        box = self.evaluate(
            f"(() => {{ const each = document.querySelector({json.dumps(selector)});"
            " each.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const {x, y, width, height} = each.getBoundingClientRect(); return [x + width / 2, y + height / 2] })()"
        )
        return box[0], box[1]

    def click(self, selector: str) -> None:
        """Click into the middle of the first element that the selector finds."""
        x, y = self.center(selector)
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, button="left", clickCount=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Do something with the mouse: mouseMoved, mousePressed, mouseReleased, mouseWheel."""
        self.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})

    def press(self, key: str) -> None:
        """Press a key and release it: a character, or a name such as ArrowLeft or Tab."""
        about: dict[str, Any] = {"key": key}
        if len(key) == 1:
            about["text"] = key
        else:
            about |= {"code": key, "windowsVirtualKeyCode": _KEYS[key]}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", **about})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **about})

    def write(self, text: str) -> None:
        """Write a text into the element that has the focus."""
        self.call("Input.insertText", {"text": text})

    def overflow(self) -> int:
        """Return by how many CSS pixels the page is wider than its window."""
        root = "document.documentElement"
        return int(self.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))

    def picture(self, path: Path, *, whole: bool = False, kind: str = "png", quality: int | None = None) -> None:
        """Write a picture of the window, or of the whole page: png or webp."""
        asked: dict[str, Any] = {"format": kind, "captureBeyondViewport": whole}
        if quality is not None:
            asked["quality"] = quality
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            asked["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", asked)["data"]))

    def close(self) -> None:
        """Close the page."""
        self._browser.forget(self)


def _high_pipe() -> tuple[int, int]:
    low = os.pipe()
    try:
        read, write = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in low)
    finally:
        for fd in low:
            os.close(fd)
    return read, write
