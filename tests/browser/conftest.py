"""A real browser for the tests of a module. They are skipped where there is no Chromium."""

from __future__ import annotations

import pytest

from tests.browser.chromium import PROGRAM, Browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Give a headless Chromium."""
    if PROGRAM is None:
        pytest.skip("there is no chromium: tests/browser/install installs it")
    made = Browser(tmp_path_factory.mktemp("chromium"))
    yield made
    made.close()


@pytest.fixture
def open_page(browser):
    """Open a page: `open_page(url, width, height, dark=False)`. When the test is over, nothing has gone wrong in it.

    Nothing but local files may have been asked for.
    """
    pages = []

    def opened(*arguments, **options):
        pages.append(browser.open(*arguments, **options))
        return pages[-1]

    yield opened
    for page in pages:
        page.evaluate("1")  # what has happened so far is told before the answer
        requests, problems = page.requests, page.problems
        page.close()
        assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
        assert problems == []
