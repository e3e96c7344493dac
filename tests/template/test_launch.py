"""What the program gets that becomes the launcher: paths and options of the host's."""

from __future__ import annotations

import sys

import pytest

from pidfdpool.template import launch
from tests.conditions import run_python


@pytest.mark.parametrize("began", ["/began/here", None])
def test_a_relative_path_means_the_directory_in_which_the_host_began_and_then_the_present_one(monkeypatch, began):
    """Guards: behind a chdir, a module of the same name in the new directory was found before the host's own."""
    monkeypatch.setattr(launch, "_initial_directory", began)
    monkeypatch.setattr(sys, "path", ["", "/absolute", "library", object()])
    if began is None:
        assert launch._paths() == ["", "/absolute", "library"]
    else:
        assert launch._paths() == [began, "", "/absolute", f"{began}/library", "library"]


def test_modules_of_the_directory_in_which_the_host_began_are_found_before_those_of_another(tmp_path):
    for name in ("began", "present"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "of_two.py").write_text(f"def where(): return {name!r}")
    done = run_python(
        """
        import os, sys
        sys.path.insert(0, "")
        from pidfdpool import PidfdPoolExecutor
        import of_two
        os.chdir("../present")
        with PidfdPoolExecutor(1) as pool:
            print(of_two.where(), pool.submit(of_two.where).result())
        """,
        cwd=tmp_path / "began",
    )
    assert (done.stdout, done.stderr) == ("began began\n", "")
