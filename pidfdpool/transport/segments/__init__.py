"""Large payloads in shared memory that is used again and again: segments.

Whoever sends a payload through a socket has it copied into the kernel and out of it, page by page into fresh memory.
A segment is an unnamed memory file (memfd_create(2)) that both processes map: the sender copies the payload into it
once, and the receiver reads it where it is. The pages have been there since the first use.

    memory   one piece of shared memory: made, sealed, mapped
    layout   how a payload lies in it
    arena    all that the host has of it: found, made, given back, let go of

The host owns every segment. One for a call is filled by the thread that submits and named in the task's frame. One
for a result is lent to a worker together with a task of a kind that is known for large results, and comes back with
the answer, filled or not. So no descriptor ever travels to the host, nothing is lost with a worker, and one bound
holds for both directions.

Readers map a segment privately (MAP_PRIVATE): what they write to an array that lies in it is theirs alone, copied by
the kernel page by page. A task that is tried again gets its arguments as they were, and a forked child has its own.
The price is that a page that was written to has to be dropped before the next payload can be seen there.

Nothing here knows of pools, frames or workers. `loop.segment_leases` and `worker.leased_segments` are the two ends.
"""

# Bytes of a payload from which on it goes into a segment. Processor time of host and worker together for one echo of
# bytes, in microseconds, through the socket and in segments (Python 3.11, Linux 6.18, medians of 7 rounds that took
# turns): 16 KB 147 and 205, 32 KB 194 and 239, 48 KB 242 and 250, 64 KB 271 and 191, 128 KB 417 and 200, 256 KB 1180
# and 214. It is also where CPython's pickler begins to hand on bytes objects as they are, uncopied.
THRESHOLD = 64 << 10
