"""Carries large payloads in shared memory that is used again and again: segments.

If a payload goes through a socket, the kernel copies it in and out, each time into fresh pages. A segment is an
unnamed memory file (memfd_create(2)) that both processes map: the sender copies the payload into it once, and the
receiver reads it there. Its pages exist since its first use.

    memory   one piece of shared memory: how it is created, sealed and mapped
    layout   where the parts of a payload lie in a segment
    arena    all segments of one pool: how they are found, allocated, released and freed

The host owns every segment. A segment for a call is filled by the thread that submits, and the task's frame names it.
A segment for a result is leased to a worker together with a task, if tasks of that name are known to have large
results; it comes back with the answer, filled or not. So no descriptor travels to the host, nothing is lost with a
worker, and one limit holds for both directions.

Readers map a segment privately (MAP_PRIVATE): what they write to an array in it is visible only to them, because the
kernel copies the page. So a task that is tried again gets its arguments unchanged, and a forked child has its own.
The price is that a page that was written to has to be discarded before the next payload can be read there.

Nothing here knows pools, frames or workers. `loop.segment_leases` and `worker.leased_segments` are the two ends.
"""

# Bytes; a payload of at least this size goes into a segment. Processor time of host and worker together for one echo
# of bytes, in microseconds, through the socket and in segments (Python 3.11, Linux 6.18, medians of 7 rounds that
# took turns): 16 KB 147 and 205, 32 KB 194 and 239, 48 KB 242 and 250, 64 KB 271 and 191, 128 KB 417 and 200, 256 KB
# 1180 and 214. From this size on CPython's pickler also passes on bytes objects without copying them.
THRESHOLD = 64 << 10
