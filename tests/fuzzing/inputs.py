"""Makes inputs from a seed: streams of frames that are valid, wrong in one place, or no frames at all."""

from __future__ import annotations

import random
import struct

from pidfdpool.transport import frame_rules

GRAMMARS = {
    "a worker to the host": frame_rules.ANSWERS,
    "the template to the host": frame_rules.FROM_TEMPLATE,
    "the host to a worker": frame_rules.TO_WORKER,
    "the host to the template": frame_rules.TO_TEMPLATE,
    "a node to the host": frame_rules.FROM_NODE,
    "the host to a node": frame_rules.TO_NODE,
}
LENGTHS = (0, 1, 7, 8, 16, 24, 100, 5000, 70_000, 1 << 20, 3 << 30, 1 << 46, 1 << 63, (1 << 64) - 1)
NUMBERS = (0, 1, 2, 7, -1, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
COOKIES = (b"", b"\x07\xf1\x00\x99")
_HEADER = struct.Struct("<BBHIq")


def number(draw: random.Random, width: int) -> int:
    """Return a number of so many bits: a small one, a power of two, or any."""
    return draw.choice((draw.randrange(4), 1 << draw.randrange(width), draw.getrandbits(width)))


def frame(draw: random.Random, kinds: list[int]) -> bytes:
    """Return a frame of one of these kinds; in most cases its lengths are those of its buffers."""
    kind = draw.choice(kinds) if draw.random() < 0.95 else draw.randrange(256)
    count = draw.choice((0, 1, 1, 1, 2, 2, 3, draw.randrange(256)))
    slot, generation = draw.choice((0, 16, number(draw, 16))), number(draw, 32)
    value = draw.choice((1, 2, 3, draw.choice(NUMBERS)))
    sizes = [draw.choice(LENGTHS[:6]) for _ in range(count)]
    body = draw.randbytes(sum(sizes)) if count < 4 else bytes(sum(sizes))
    if sizes and draw.random() < 0.2:
        sizes[draw.randrange(count)] = draw.choice(LENGTHS)
    head = _HEADER.pack(kind, count, slot, generation, value)
    return head + struct.pack(f"<{count}Q", *sizes) + body


def stream(draw: random.Random, kinds: list[int], cookie: bytes) -> bytes:
    """Return what somebody may have written into a channel."""
    parts = []
    for _ in range(draw.randrange(1, 5)):
        if draw.random() < 0.9:
            parts.append(cookie)
        parts.append(frame(draw, kinds))
    if draw.random() < 0.3:
        parts.insert(
            draw.randrange(len(parts) + 1), draw.choice((b"\n", b"a line\n", draw.randbytes(draw.randrange(40))))
        )
    return damaged(draw, b"".join(parts)) if draw.random() < 0.3 else b"".join(parts)


def damaged(draw: random.Random, data: bytes) -> bytes:
    """Return the bytes with some of them changed, left out, repeated or cut off."""
    changed = bytearray(data)
    for _ in range(draw.randrange(1, 4)):
        if not changed:
            break
        at = draw.randrange(len(changed))
        how = draw.randrange(4)
        if how == 0:
            changed[at] = draw.randrange(256)
        elif how == 1:
            del changed[at : at + draw.randrange(1, 12)]
        elif how == 2:
            changed[at:at] = changed[at : at + draw.randrange(1, 12)]
        else:
            del changed[at:]
    return bytes(changed)
