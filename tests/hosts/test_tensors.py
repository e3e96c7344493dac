"""Tensors of torch's, which multiprocessing's reducers share with whoever gets them: by a descriptor for each."""

from __future__ import annotations

import importlib.util

import pytest

from tests.conditions import run_python

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")

SCRIPT = """
import os, sys
import torch, torch.multiprocessing
from pidfdpool import PidfdPoolExecutor
from tests.conditions import eventually

def count():
    return len(os.listdir("/proc/self/fd"))

def fill(tensor, value):
    tensor.fill_(value)
    return float(tensor.sum())

def make(size):
    return torch.ones(size)

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.multiprocessing.set_sharing_strategy("file_descriptor")
    functions = [fill, lambda tensor, value: fill(tensor, value), torch.Tensor.fill_]
    shared = torch.zeros(3)
    with PidfdPoolExecutor(1, mp_context=sys.argv[1]) as pool:
        for number, function in enumerate(functions):
            pool.submit(function, shared, number + 1).result(timeout=60)
            assert shared.tolist() == [number + 1.0] * 3, shared  # it is shared memory now
        assert pool.submit(make, 4).result(timeout=60).tolist() == [1.0] * 4
        assert pool.submit(lambda: make(4)).result(timeout=60).tolist() == [1.0] * 4
        before = count()
        for _ in range(50):
            futures = [pool.submit(functions[number % 2], shared, number) for number in range(20)]
            for future in futures:
                future.result(timeout=60)
        eventually(lambda: count() <= before, "no descriptor is left")
    print("as they were")
"""


@pytest.mark.timeout(150)
def test_a_thousand_calls_with_tensors_leave_the_hosts_descriptors_as_they_were(way, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    code = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    done = run_python(code, way, timeout=140.0, flags=("-W", "ignore"))
    assert done.stdout == "as they were\n", done.stderr
