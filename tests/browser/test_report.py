"""The page of a trace, opened and read in Chromium: its numbers are the trace's, and its timeline can be used."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from pidfdpool.cli.report import write_page
from tests.cli.traces import TraceFile, simulated

FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
MILLION = 1e6
LEAST = 2.0


class View(NamedTuple):
    begin: float
    end: float

    @property
    def span(self):
        return self.end - self.begin


class Report:
    """A report in a page."""

    def __init__(self, page):
        self.page = page
        page.wait("document.documentElement.dataset.ready == 'yes'")
        self.settle()

    def settle(self):
        self.page.wait(FRAMES)

    @property
    def view(self):
        told = self.page.evaluate("({...document.getElementById('canvas').dataset})")
        return View(float(told["begin"]), float(told["end"]))

    def place(self, slot, time):
        """Scroll the timeline into view; return where a time is on a worker's track."""
        self.page.center("#canvas")
        told = self.page.evaluate("""(() => {
            const canvas = document.getElementById("canvas"), {x, y, width} = canvas.getBoundingClientRect();
            return {x, y, width, ...canvas.dataset};
        })()""")
        left, height = float(told["left"]), float(told["height"])
        view = self.view
        x = told["x"] + left + (time - view.begin) / view.span * (told["width"] - left)
        return x, told["y"] + float(told["tracks"]) + (slot + 0.5) * height

    def wheel(self, slot, time, by):
        x, y = self.place(slot, time)
        self.page.mouse("mouseWheel", x, y, deltaX=0, deltaY=by)
        self.settle()

    def point(self, slot, time):
        self.page.mouse("mouseMoved", *self.place(slot, time))
        self.settle()
        return None if self.page.evaluate("document.getElementById('tooltip').hidden") else self.page.text("#tooltip")

    def colours(self, x, y, width, height):
        """Return how many colours a part of the canvas has, from the place of its tracks on."""
        return self.page.evaluate(f"""(() => {{
            const canvas = document.getElementById("canvas");
            const data = canvas.getContext("2d").getImageData({x}, {y}, {width}, {height}).data;
            return new Set(new Uint32Array(data.buffer)).size;
        }})()""")


@pytest.fixture
def opened(open_page, tmp_path):
    """Open the page of a trace."""

    def report(trace, *size, **options):
        write_page(str(trace.write(tmp_path / "run.json")), str(tmp_path / "run.html"))
        return Report(open_page((tmp_path / "run.html").as_uri(), *size, **options))

    return report


def small():
    """Two workers: one runs three tasks, the other one and dies of a second one, which is run again."""
    trace = TraceFile()
    trace.start(0, 0, 100_000, initializer=(40_000, 60_000))
    trace.start(1, 0, 100_000)
    trace.task(0, 200_000, 300_000, "jobs:<lambda>", queued=100_000, request_bytes=2_000_000, calls=5)
    trace.task(0, 500_000, 100_000, "jobs:work", queued=450_000, outcome="failed", error="ValueError: <no & name>")
    trace.task(1, 100_000, 100_000, "jobs:work", queued=100_000)
    trace.memory(1, 150_000, 100e6)
    trace.memory(1, 400_000, 900e6)
    lost = trace.task(
        1, 300_000, 200_000, "jobs:work", queued=10_000, outcome="crashed", error="WorkerCrashed: SIGKILL"
    )
    trace.death(1, 500_000, "worker 1 (pid 5001) ended: SIGKILL", signal=9, reason="not asked to end", tasks=[lost])
    trace.mark("retry", 500_000, task=lost, attempt=2, why="WorkerCrashed", delay=0.1)
    trace.task(0, 700_000, 300_000, "jobs:work", number=lost, attempt=2, queued=5_000)
    trace.counter("queue", 100_000, queued=3)
    trace.counter("queue", 700_000, queued=0)
    trace.counter("busy", 200_000, workers=2)
    return trace


def test_the_numbers_on_the_page_are_those_of_the_trace(opened):
    page = opened(small()).page
    shown = dict(zip(page.texts("#summary dt"), page.texts("#summary dd"), strict=True))
    assert shown == {
        "duration": "1 s", "workers": "2", "tasks": "4", "calls": "8", "done": "3", "failed": "1", "retried": "1",
        "deaths": "1 (1 unexpected)", "throughput": "8 calls/s", "payloads": "2 MB", "Python": "3.15.2",
        "pidfdpool": "0.3.0, exec", "begun": "2026-11-30 00:53:20 UTC",
    }  # fmt: skip
    workers = [[cell.replace("\n", " ") for cell in row] for row in page.rows("#workers")]
    assert workers[1:] == [
        ["worker 0", "", "10 % 100 ms", "10 % 100 ms", "70 % 700 ms", "10 % 100 ms", "3", "1", "0"],
        ["worker 1", "", "20 % 100 ms", "2 % 10 ms", "60 % 300 ms", "18 % 90 ms", "2", "1", "1"],
    ]
    assert page.rows("#functions") == [
        ["jobs:work", "4", "4", "2", "700 ms", "70 %", "100 ms", "300 ms", "300 ms"],
        ["jobs:<lambda>", "1", "5", "0", "300 ms", "30 %", "300 ms", "300 ms", "300 ms"],
    ]
    slowest = page.rows("#slowest")
    assert [row[0] for row in slowest[:3]] == ["jobs:<lambda>", "jobs:work", "jobs:work"]
    assert slowest[-1][-1].endswith("done")
    [death] = page.rows("#deaths")
    assert death[0] == "500 ms"
    assert death[2:] == ["SIGKILL", "worker 1 (pid 5001) ended: SIGKILL not asked to end", "4 (jobs:work)"]
    assert page.text("#advice li").startswith("1 worker died of SIGKILL after its memory had risen, up to 900 MB.")
    assert page.texts("#histogram figcaption code") == ["jobs:work", "jobs:<lambda>"]
    assert page.evaluate("[...document.querySelectorAll('#histogram rect title')].map(each => each.textContent)") == [
        "100 ms to 200 ms: 2", "200 ms to 500 ms: 2", "200 ms to 500 ms: 1",
    ]  # fmt: skip


def test_the_mouse_shows_what_lies_under_it(opened):
    report = opened(small())
    told = report.point(0, 350_000).split("\n")
    assert told[0] == "jobs:<lambda>"
    assert told[1:] == [
        "task", "1, worker 0", "took", "300 ms, after 100 ms in the queue",
        "submitted", "0.1000 s, begun 0.2000 s, ended 0.5000 s", "outcome", "done", "calls", "5",
        "payloads", "call 2 MB, result 30 bytes", "before", "the worker waited 100 ms",
    ]  # fmt: skip
    failed = report.point(0, 550_000)
    assert "failed" in failed
    assert "ValueError: <no & name>" in failed
    assert report.point(0, 50_000).split("\n") == [
        "worker",
        "worker 0, pid 5000",
        "starts",
        "100 ms",
        "initializer",
        "60 ms",
    ]
    assert report.point(1, 500_000).startswith("death at 0.5000 s\nworker 1 (pid 5001) ended: SIGKILL")
    assert report.point(1, 900_000) is None  # no worker was there
    assert "runs nothing" in report.point(0, 650_000)


def test_wheel_drag_buttons_and_keys_move_the_timeline(opened):
    report = opened(small())
    page = report.page
    whole = report.view
    assert whole == (0, MILLION)
    report.wheel(0, 400_000, -200)
    near = report.view
    assert near.span < 0.6 * whole.span
    assert near.begin < 400_000 < near.end
    shown = (400_000 - near.begin) / near.span
    assert shown == pytest.approx(0.4, abs=0.01)  # what is under the mouse stays there

    x, y = report.place(0, 400_000)
    page.mouse("mouseMoved", x, y)
    page.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
    page.mouse("mouseMoved", x + 100, y, button="left", buttons=1)
    page.mouse("mouseReleased", x + 100, y, button="left", clickCount=1)
    assert report.view.begin < near.begin
    assert report.view.span == pytest.approx(near.span)

    page.click("#zoom-in")
    assert report.view.span == pytest.approx(near.span / 2)
    before = report.view
    page.click("#pan-right")
    assert report.view.begin == pytest.approx(before.begin + before.span / 2)
    page.click("#pan-left")
    page.click("#zoom-out")
    assert report.view.span == pytest.approx(near.span)
    page.click("#zoom-all")
    assert report.view == whole

    page.evaluate("document.getElementById('canvas').focus()")
    page.press("+")
    assert report.view.span == pytest.approx(whole.span / 2)
    before = report.view
    page.press("ArrowRight")
    assert report.view.begin > before.begin
    page.press("ArrowLeft")
    page.press("-")
    assert report.view == whole
    for _ in range(40):
        page.press("+")
    assert report.view.span == LEAST
    for _ in range(3):
        page.press("ArrowLeft")
    page.press("0")
    assert report.view == whole
    page.press("ArrowLeft")
    assert report.view == whole  # there is nothing before the beginning
    assert page.text("#range") == "0.00 s to 1.00 s (1 s)"


def test_where_all_is_shown_the_wheel_scrolls_the_page(opened):
    report = opened(simulated(200))
    x, y = report.place(0, 0.5 * MILLION)
    before = report.page.evaluate("scrollY")
    report.page.mouse("mouseWheel", x, y, deltaX=0, deltaY=120)
    report.page.wait(f"scrollY > {before}")
    assert report.view.begin == 0


def test_tasks_can_be_read_with_the_keys_alone(opened):
    report = opened(small())
    page = report.page
    page.evaluate("document.getElementById('zoom-all').focus()")
    page.press("Tab")
    assert page.evaluate("document.activeElement.id") == "canvas"
    page.press("ArrowDown")
    assert "2, worker 0" in page.text("#details")
    page.press(",")
    assert "1, worker 0" in page.text("#details")
    page.press(",")  # there is none before
    page.press(".")
    page.press(".")
    assert "4, attempt 2, worker 0" in page.text("#details")
    page.press(".")  # there is none behind
    page.press(",")
    assert "2, worker 0" in page.text("#details")
    page.press("ArrowDown")
    assert "4, worker 1" in page.text("#details")
    page.press("Escape")
    assert page.text("#details") == ""


def test_a_click_keeps_a_task(opened):
    report = opened(small())
    x, y = report.place(1, 150_000)
    report.page.mouse("mouseMoved", x, y)
    report.page.mouse("mousePressed", x, y, button="left", clickCount=1)
    report.page.mouse("mouseReleased", x, y, button="left", clickCount=1)
    assert "3, worker 1" in report.page.text("#details")


@pytest.mark.parametrize(("width", "height", "dark"), [(1280, 900, False), (400, 800, True)])
def test_the_page_fits_its_window(opened, width, height, dark):
    report = opened(simulated(600), width, height, dark=dark)
    page = report.page
    assert page.overflow() == 0
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") is not dark
    assert page.evaluate("document.getElementById('canvas').clientWidth") > width * 0.9
    assert report.colours(100, 160, 200, 70) > 5
    named = (
        "[...document.querySelectorAll('button, canvas, svg, .bar')].map(each => each.ariaLabel || each.innerText)"
    )
    assert all(page.evaluate(named))
    assert page.evaluate("document.querySelectorAll('table').length") >= 4


def test_colours_follow_the_system_while_the_page_is_open(opened):
    report = opened(small())
    report.page.call("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    report.settle()
    corner = "document.getElementById('canvas').getContext('2d').getImageData(300, 30, 1, 1).data"
    assert report.page.evaluate(f"Math.max(...{corner}.slice(0, 3))") < 100


def test_two_hundred_thousand_tasks(opened):
    report = opened(simulated(200_000, tiny=True, workers=8, flow=False))
    page = report.page
    assert dict(zip(page.texts("#summary dt"), page.texts("#summary dd"), strict=True))["tasks"] == "200,000"
    whole = report.view
    for _ in range(5):
        report.wheel(3, whole.span / 2, -400)
    assert report.view.span < whole.span / 500
    report.wheel(3, whole.span / 2, 10_000)
    assert report.colours(200, 160, 600, 150) > 10


def test_texts_of_a_trace_are_texts(opened):
    evil = "a:</script><img src=x onerror=document.title='hit'>"
    trace = TraceFile()
    trace.start(0, 0, 100)
    trace.name(1, evil)
    trace.task(0, 100, 1000, evil, outcome="crashed", error=evil)
    trace.death(0, 1100, evil, reason=evil, signal=9)
    report = opened(trace)
    assert evil in report.point(0, 500)
    assert report.page.evaluate("document.images.length") == 0
    assert report.page.rows("#functions")[0][0] == evil
    assert report.page.evaluate("document.title") == "Report of pidfdpool sample"


def test_a_browser_that_cannot_unpack_says_so(browser, tmp_path):
    write_page(small().write(tmp_path / "run.json"), tmp_path / "run.html")
    page = browser.open("about:blank#")
    page.call("Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream"})
    page.go((tmp_path / "run.html").as_uri())
    page.wait("document.querySelector('.notice') !== null")
    assert "This browser cannot draw the timeline: DecompressionStream is not defined." in page.text(".notice")
    assert len(page.rows("#functions")) == 2
    page.close()


def test_a_trace_with_nothing_in_it(opened):
    report = opened(TraceFile())
    assert report.page.text(".notice") == "No task has ended in this trace."
    assert report.page.evaluate("document.querySelectorAll('section').length") == 1
    report.page.click("#zoom-in")
    report.page.evaluate("document.getElementById('canvas').focus()")
    for key in ("ArrowDown", ".", "+", "0"):
        report.page.press(key)
    assert report.page.text("#details") == ""
