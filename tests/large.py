"""Functions with large arguments and results, that tests have workers call."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import time

from pidfdpool import current_task

kept: list[object] = []


def echo(value):
    return value


def make(size: int, byte: int = 1) -> bytes:
    return bytes([byte]) * size


def make_array(length: int, number: float):
    import numpy

    return numpy.full(length, number)


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.002)


def echo_or_die(value, die: bool):
    if die:
        signal.raise_signal(signal.SIGKILL)
    return value


def total(array) -> float:
    return float(array.sum())


def increment(array) -> float:
    """Write to the argument, and return its sum."""
    array += 1
    return float(array.sum())


def keep(array) -> None:
    kept.append(array)


def kept_totals() -> list[float]:
    return [float(array.sum()) for array in kept]


def forget() -> None:
    kept.clear()


def increment_and_die_at_first(array) -> float:
    array += 1
    if current_task().attempt == 1:
        signal.raise_signal(signal.SIGKILL)
    return float(array.sum())


def fork_and_keep_in_child(array, path: str) -> int:
    """Leave a forked child behind that writes the sum of what it sees into the file again and again."""
    pid = os.fork()
    if pid:
        return pid
    try:
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            with open(path + ".new", "w") as file:
                file.write(repr(float(array.sum())))
            os.replace(path + ".new", path)
            time.sleep(0.005)
    finally:
        os._exit(0)


def lies_in_a_segment(array) -> bool:
    """Return whether the array's memory is that of a memory file."""
    return is_of_a_segment(array.__array_interface__["data"][0] if hasattr(array, "dtype") else _address(array))


def is_of_a_segment(address: int) -> bool:
    """Return whether what is mapped there is a memory file of the pool's."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            first, _, rest = line.partition("-")
            last = rest.split(" ", 1)[0]
            if int(first, 16) <= address < int(last, 16):
                return "memfd:pidfdpool-segment" in line
    return False


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def describe(buffer) -> tuple[str, int, bool]:
    """Tell the type, the length and whether it can be written to."""
    with memoryview(buffer) as view:
        return type(buffer).__name__, view.nbytes, not view.readonly


def segments_seen() -> int:
    """Return how many segments this process has mapped."""
    with open("/proc/self/maps") as maps:
        return maps.read().count("memfd:pidfdpool-segment")


def buffer_of(size: int) -> pickle.PickleBuffer:
    return pickle.PickleBuffer(bytearray(size))


class Dies:
    """Ends the process in which it is pickled."""

    def __reduce__(self):
        signal.raise_signal(signal.SIGKILL)
        time.sleep(60)


def array_and_death(length: int):
    import numpy

    return numpy.zeros(length), Dies()


_used_up: list[int] = []


def use_up_descriptors() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    import numpy  # noqa: F401  while there are some left

    try:
        while True:
            _used_up.append(os.dup(2))
    except OSError:
        pass


def free_descriptors() -> None:
    while _used_up:
        os.close(_used_up.pop())


def sum_in_a_pool(array, way: str) -> list[float]:
    from pidfdpool import PidfdPoolExecutor

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        return [pool.submit(total, array).result() for _ in range(4)]


def hide_what_segments_need(hidden):
    """Have this worker load it no more, as if there were no files, or no descriptor to read them with."""
    for name in ("pidfdpool.transport.segments", "pidfdpool.transport.segments.arena"):
        if hidden:
            assert name not in sys.modules
            sys.modules[name] = None
        else:
            del sys.modules[name]
