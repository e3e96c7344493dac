"""Of a measurement nothing is left, whatever it has started and however it ended."""

from __future__ import annotations

import json

from tests.conditions import run_python


def in_a_runner(code):
    done = run_python(f"import json, os, subprocess\nfrom benchmarks import isolation, processes\n{code}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_orphans_in_sessions_of_their_own_are_killed():
    before, after = in_a_runner(
        "isolation.adopt_orphans()\n"
        "subprocess.run(['sh', '-c', 'setsid sleep 600 & setsid sleep 600 & exit'])\n"
        "before = processes.children(os.getpid())\n"
        "isolation.end_children()\n"
        "print(json.dumps([before, processes.children(os.getpid())]))"
    )
    assert len(before) == 2
    assert after == []


def test_a_measurement_that_is_not_done_in_time_is_ended():
    answer, left = in_a_runner(
        "isolation.adopt_orphans()\n"
        "answer = isolation.measured('crash-told', 'mp-pool', 1.0, True)\n"
        "print(json.dumps([answer, processes.children(os.getpid())]))"
    )
    assert answer["verdict"] in ("hangs", "slow")  # slow where even the start takes a second
    assert "after 1 s" in answer["reason"]
    assert left == []


def test_a_measurement_that_ends_without_an_answer_has_failed():
    (answer,) = in_a_runner(
        "isolation.adopt_orphans()\nprint(json.dumps([isolation.measured('no-such', 'ours', 20.0, True)]))"
    )
    assert answer == {"verdict": "fails", "reason": "KeyError: 'no-such'"}
