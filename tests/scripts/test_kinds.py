"""Each kind of script, with each pool.

With the standard pool whatever happens is noted, and with ours each kind works, unless it tells a reason why not.
"""

from __future__ import annotations

import sys

import pytest

from tests.scripts.kinds import SECTIONS
from tests.scripts.running import WORKS, Seen, run

KINDS = [(section, kind) for section, kinds in SECTIONS.items() for kind in kinds]


@pytest.mark.costly_table
@pytest.mark.parametrize(("section", "kind"), KINDS, ids=[kind.name for _, kind in KINDS])
def test_it_works(section, kind, contender, tmp_path, record_property):
    if sys.version_info < kind.since:
        pytest.skip("needs Python {}.{}".format(*kind.since))
    if kind.missing():
        pytest.skip(f"needs {', '.join(kind.missing())}")
    seen = WORKS
    try:
        run(kind, contender, tmp_path)
    except Seen as wrong:
        seen = str(wrong).splitlines()[0]
        if contender.may_fail(kind):
            pytest.xfail(seen)
        raise
    finally:
        row = {"section": section, "title": kind.title, "contender": contender.name, "seen": seen}
        record_property("row", row)


def test_titles_are_not_given_twice():
    names = [kind.name for _, kind in KINDS]
    assert sorted(set(names)) == sorted(names)
