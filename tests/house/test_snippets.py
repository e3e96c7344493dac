"""Every block of code of the documentation is run as it is printed, in the order of its page.

`tests/house/examples.py` says how. A page is one test. What needs a library that is not installed is left out, and
the test ends as skipped; `tox -e pages` has all of them, and allows no such thing.
"""

from __future__ import annotations

import gzip
import json
import re
import socket

import pytest

from tests.cli.traces import simulated
from tests.house.examples import LIBRARIES, Example, Folder, check, commands_of, examples_of, is_said
from tests.house.pages import PAGES, ROOT, Block, name_of

EXAMPLES = {page: examples_of(page) for page in PAGES}
ALL = [example for examples in EXAMPLES.values() for example in examples]
NOT_RUN = [example for example in ALL if example.why_not is not None]
RUN = [page for page, examples in EXAMPLES.items() if any(not one.is_output and not one.why_not for one in examples)]


@pytest.fixture
def folder(tmp_path):
    """Give a folder with the files that a reader of the pages is said to have."""
    events = "".join(json.dumps({"id": number}) + "\n" for number in range(20))
    with gzip.open(tmp_path / "events.jsonl.gz", "wt") as file:
        file.write(events)
    (tmp_path / "big.jsonl").write_text(events)
    consume = "def consume(node, *queues):\n    node.healthy()\n"  # nothing is in them
    (tmp_path / "mymodule.py").write_text(f"def clean(event):\n    return event\n\nscore = clean\n\n{consume}")
    simulated(50).write(tmp_path / "run.json")
    folder = Folder(tmp_path)
    yield folder
    folder.close()


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_blocks_of_a_page_run_as_they_are_printed(page, folder, request):
    left_out = {}
    for example in EXAMPLES[page]:
        check(example)
        if example.why_not is not None:
            continue
        if example.missing or left_out:  # what comes later may need what was left out
            left_out[example.name] = example.missing or "see above"
        else:
            folder.run(example)
    if left_out:
        assert not request.config.getoption("--all-libraries"), left_out
        pytest.skip(f"left out, without their libraries: {left_out}")


@pytest.mark.parametrize("example", NOT_RUN, ids=[example.name for example in NOT_RUN])
def test_a_block_that_is_not_run_is_well_formed_and_its_reason_holds(example):
    check(example)
    for path in re.findall(r"tests/[\w/.]+\.py", example.why_not):
        assert (ROOT / path).exists(), path
    pytest.skip(example.why_not)


def test_each_mark_stands_above_a_block():
    for page in PAGES:
        marks = re.findall("^ *<!-- not run", page.read_text(), re.MULTILINE)
        assert len(marks) == sum(one.why_not is not None for one in EXAMPLES[page]), name_of(page)


def test_each_library_is_used():
    text = "".join(example.block.text for example in ALL)
    assert [library for library in LIBRARIES if library not in text] == []


def test_files_that_commands_name_are_there():
    for example in ALL:
        if example.block.language in ("", "sh", "console"):
            for command in commands_of(example):
                for word in re.findall(r"(?:^|\s)(?:tests|docs|benchmarks)/[\w/.]+", command.text):
                    assert (ROOT / word.strip()).exists(), (example.name, command)


def example(language: str, text: str) -> Example:
    return Example(ROOT / "README.md", Block(language, text, 1))


def test_a_program_that_fails_or_prints_something_else_is_noticed(folder):
    with pytest.raises(AssertionError, match=r"ends with 1:\n(.*\n)*ZeroDivisionError"):
        folder.run(example("python", "1 / 0\n"))
    folder.run(example("python", "print(1)\n")._replace(prints="1\n"))
    with pytest.raises(AssertionError, match="it prints\n1"):
        folder.run(example("python", "print(1)\n")._replace(prints="2\n"))


def test_each_command_of_a_console_is_compared_with_what_stands_below_it(folder):
    folder.run(example("python", "# made/two.py\nprint('two')\n"))
    folder.run(example("console", "$ cd made\n$ echo one \\\n    more\none more\n$ python two.py\ntwo\n"))
    with pytest.raises(AssertionError, match="it prints\none"):
        folder.run(example("console", "$ echo one\ntwo\n$ echo two\ntwo\n"))
    with pytest.raises(AssertionError, match="ends with 1"):
        folder.run(example("console", "$ false | cat\n$ echo two\ntwo\n"))


def test_what_runs_in_the_background_is_there_for_the_next_block(folder):
    folder.run(example("console", "$ sleep 1000 & echo $! > pid\n"))
    folder.run(example("console", "$ kill -0 $(cat pid)\n"))


def test_a_page_gets_a_free_port_in_the_place_of_the_one_that_it_names(folder, tmp_path):
    page = tmp_path / "page.md"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        page.write_text(f"<!-- port: {port} -->\n")
        folder.run(Example(page, Block("python", f"# settings.py\nPORT = {port}\n", 1)))
        serve = "import settings, socket\nsocket.create_server(('127.0.0.1', settings.PORT))\n"
        folder.run(Example(page, Block("python", serve, 1)))
        with pytest.raises(AssertionError, match="Address already in use"):
            folder.run(Example(ROOT / "README.md", Block("python", serve.replace("settings.PORT", str(port)), 1)))


@pytest.mark.parametrize(
    "block", [("python", "1 +\n"), ("sh", "if\n"), ("json", "{"), ("yaml", "a: 1\n"), ("toml", "a\n")], ids=str
)
def test_a_block_that_is_not_well_formed_or_of_no_known_kind_is_refused(block):
    with pytest.raises(Exception, match="."):
        check(example(*block))


def test_outputs_are_compared_loosely():
    assert is_said("a\n...\nc\n", "a\nb\nb2\nc\n")
    assert is_said("a ... c", "a c")
    assert not is_said("a\n...\nc\n", "a\nb\n")
