"""The client of the browser sees what it says it sees."""

from __future__ import annotations

import pytest

PAGE = """<!doctype html><title>A page</title><meta name="viewport" content="width=device-width">
<h1>Heading</h1><button onclick="this.textContent = 'pressed'">press</button>
<table><tbody><tr><td>a</td><td>1</td></tr><tr><td>b</td><td>2</td></tr></tbody></table>
<input oninput="document.title = this.value">
"""


@pytest.fixture
def url(tmp_path):
    (tmp_path / "page.html").write_text(PAGE)
    return (tmp_path / "page.html").as_uri()


def test_a_page_is_read_clicked_and_written_to(open_page, url, tmp_path):
    page = open_page(url, 400, 800)
    assert page.text("h1") == "Heading"
    assert page.rows("table") == [["a", "1"], ["b", "2"]]
    assert page.evaluate("innerWidth") == 400
    page.click("button")
    assert page.text("button") == "pressed"
    page.click("input")
    page.write("written")
    page.wait("document.title == 'written'")
    assert page.overflow() == 0
    page.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_what_goes_wrong_in_a_page_is_noted(browser, url):
    page = browser.open(url)
    page.evaluate("fetch('https://example.org/').catch(() => 0)")
    page.evaluate("console.error('told')")
    page.evaluate("void setTimeout(() => { throw new Error('thrown') })")
    page.evaluate("new Promise(done => setTimeout(done, 50))")
    assert page.requests[-1] == "https://example.org/"
    assert any("ERR_NAME_NOT_RESOLVED" in each or "ERR_FAILED" in each for each in page.problems)
    assert "told" in page.problems
    assert any("thrown" in each for each in page.problems)
    page.close()


def test_the_colours_that_a_user_prefers(open_page, url):
    for dark in (True, False):
        page = open_page(url, dark=dark)
        assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is dark
