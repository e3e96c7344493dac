"""Pickles that travel through the cluster unopened, with their large buffers beside them.

Used in the client, on the thread that submits or takes a result, and in the workers of the nodes' pools. It loads
nothing of dask's, because those workers do not need it.

What can be imported is pickled by reference, everything else by value (cloudpickle): functions of scripts and
notebooks, lambdas, closures, and what was named to `cloudpickle.register_pickle_by_value`.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGE = 1 << 16  # bytes of a buffer that is worth a frame of its own


class Payload:
    """A pickle, and the buffers that were left out of it. Whoever passes it on does not open it."""

    __slots__ = ("frames",)

    def __init__(self, *frames: Any) -> None:
        """frames: the pickle, then its buffers; anything with the buffer protocol."""
        self.frames = frames

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Leave large frames out of the pickle, so that neither dask nor the pool copies them more than they must."""
        return Payload, tuple(_frame(frame, out_of_band=protocol >= 5) for frame in self.frames)

    def __sizeof__(self) -> int:
        """Return the bytes that it holds, by which dask accounts for it."""
        return 100 + sum(memoryview(frame).nbytes for frame in self.frames)


def _frame(frame: Any, *, out_of_band: bool) -> Any:
    if type(frame) is bytes and len(frame) < LARGE:
        return frame
    view = memoryview(frame)
    if out_of_band and view.nbytes >= LARGE:
        return pickle.PickleBuffer(frame)
    return bytes(view) if view.readonly else bytearray(view)


def dumps(value: Any, *, snapshot: bool = False) -> Payload:
    """Pickle a value.

    snapshot: copy the buffers that are left out, so that later changes of the value have no effect.

    Raises:
        Exception: whatever pickling it raises.
    """
    import cloudpickle

    buffers: list[pickle.PickleBuffer] = []
    data = None
    if not cloudpickle.list_registry_pickle_by_value():
        try:
            data = pickle.dumps(value, 5, buffer_callback=buffers.append)
        except Exception:  # cloudpickle may be able to, and otherwise has the better message
            data = None
    if data is None or b"__main__" in data:
        buffers.clear()
        data = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    return Payload(data, *([_copy(view) for view in views] if snapshot else views))


def _copy(view: memoryview) -> bytes | bytearray:
    return bytes(view) if view.readonly else bytearray(view)


def loads(payload: Payload) -> Any:
    """Rebuild the value. Runs whatever code the pickle asks for."""
    frames: Sequence[Any] = payload.frames
    return pickle.loads(frames[0], buffers=frames[1:])
