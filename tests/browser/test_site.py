"""The site of the documentation, opened from the disk as a reader does: search, narrow windows, and no network.

`tox -e site` has built it before. Without that (PIDFDPOOL_SITE is not set) it is built here, if Sphinx is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

ROOT = Path(__file__).parents[2]
# What people ask, and the page that tells it.
QUESTIONS = {
    "how do I log from workers": "logging.html",
    "why does my notebook function fail": "guides/notebooks.html",
    "how do I limit memory": "supervision.html",
    "what is different from loky": "migration/loky.html",
    "is it safe under gunicorn --preload": "forking.html",
    "supervise a kafka consumer": "swarm.html",
    "worker killed by oom": "questions.html",
    "pickle error lambda": "python-3.14.html",
    "timeout for a task": "supervision.html",
    "prometheus": "metrics.html",
    "progress bar": "guides/notebooks.html",
    "fork deadlock threads": "forking.html",
    "initializer database connection": "questions.html",
    "stack trace of a hanging task": "questions.html",
}
FIRST = 3  # results that a reader looks at


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Give the folder of the site."""
    if built := os.environ.get("PIDFDPOOL_SITE"):
        return Path(built)
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--fail-on-warning", "--keep-going", "--quiet"]
    subprocess.run([*command, "--doctree-dir", folder / "read", ROOT / "docs", folder / "site"], check=True)
    return folder / "site"


def hits(open_page, site, question):
    """Return where the results of a search lead, the first one first."""
    page = open_page(f"{(site / 'search.html').as_uri()}?q={quote(question)}")
    page.wait("document.querySelector('#search-results .search-summary')?.innerText.includes('found')")
    links = page.evaluate("[...document.querySelectorAll('#search-results li > a')].map(each => each.href)")
    return [link.removeprefix(site.as_uri() + "/").partition("?")[0] for link in links]


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_search_answers_a_question(open_page, site, question):
    assert QUESTIONS[question] in hits(open_page, site, question)[:FIRST]


def test_the_search_finds_the_reference_of_a_name(open_page, site):
    place = "reference/executors.html#pidfdpool.get_shared_executor"
    assert place in hits(open_page, site, "get_shared_executor")[:FIRST]


def test_the_search_field_of_a_page_leads_to_results(open_page, site):
    page = open_page((site / "tutorial.html").as_uri())
    page.click("input.sidebar-search")
    page.write("timeout")
    page.press("\r")
    page.wait("document.querySelectorAll('#search-results li').length > 5")


def test_no_page_is_wider_than_its_window(open_page, site):
    page = open_page((site / "index.html").as_uri())
    wide = {}
    for path in sorted(site.rglob("*.html")):
        page.go(path.as_uri())
        page.wait(f"location.pathname.endsWith({path.name!r})")
        for width in (400, 1280):
            page.resize(width, 900)
            if over := page.overflow():
                wide[path.name, width] = over
    assert wide == {}


def test_each_link_of_a_page_is_one(site):
    """A reference without a definition stays as it was written, and no tool warns of it."""
    left = {}
    for path in site.rglob("*.html"):
        article = path.read_text().partition("<article")[2].partition("</article>")[0]
        prose = re.sub(r"<(pre|code|dt)\b.*?</\1>|<[^>]+>", "", article, flags=re.DOTALL)
        if found := re.findall(r".{0,20}\](?:\[|\().{0,20}", prose):
            left[path.name] = found
    assert left == {}


def test_a_wide_table_scrolls_by_itself(open_page, site):
    page = open_page((site / "options.html").as_uri(), 400, 900)
    table = "document.querySelector('.table-wrapper')"
    assert page.evaluate(f"{table}.scrollWidth > {table}.clientWidth")
    page.evaluate(f"{table}.scrollLeft = 10000")
    assert page.evaluate(f"{table}.scrollLeft") > 0


def test_dark_and_light_follow_the_reader(open_page, site):
    colours = [
        open_page((site / "index.html").as_uri(), dark=dark).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for dark in (False, True)
    ]
    assert colours[0] != colours[1]


def test_nothing_is_loaded_from_elsewhere(site):
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = path.read_text()
        for asked in ('src="http', "url(http", 'rel="stylesheet" href="http', "@import"):
            assert asked not in text, path
