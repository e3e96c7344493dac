"""Files and pipes become blocks of whole lines, and nothing is lost, doubled or read too soon."""

from __future__ import annotations

import gzip
import os
import threading
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidfdpool.cli import source as sources
from pidfdpool.cli.source import DescriptorReader, ReadError, Source, split_into_blocks
from pidfdpool.cli.usage import UsageError


class Script:
    """A reader that returns given pieces; None between them means that the next one is not there yet."""

    def __init__(self, pieces):
        self.pieces = list(pieces)
        self.position = 0

    def read(self):
        while self.pieces and self.pieces[0] is None:
            self.pieces.pop(0)
        piece = self.pieces.pop(0) if self.pieces else b""
        self.position += len(piece)
        return piece

    def ready(self):
        return not (self.pieces and self.pieces[0] is None)


def blocks_of(*pieces, limit=1000):
    return list(split_into_blocks("file", Script(pieces), lambda: limit))


def test_a_block_begins_with_the_number_of_its_first_line():
    blocks = blocks_of(b"1\n2\n3\n4\n5\n", limit=2)
    assert [(block.line, block.data) for block in blocks] == [(1, b"1\n2\n"), (3, b"3\n4\n"), (5, b"5\n")]


def test_the_last_line_needs_no_end():
    assert [block.data for block in blocks_of(b"1\n2", limit=1)] == [b"1\n", b"2"]


def test_what_is_there_makes_one_block():
    assert [block.data for block in blocks_of(b"1\n2", b"\n3\n")] == [b"1\n2\n3\n"]


def test_what_is_not_there_yet_is_not_waited_for():
    assert [block.data for block in blocks_of(b"1\n2", None, b"\n3\n")] == [b"1\n", b"2\n3\n"]


def test_blank_lines_count():
    assert [block.line for block in blocks_of(b"1\n\n\n", None, b"4\n")] == [1, 4]


def test_a_long_line_is_one_block(monkeypatch):
    monkeypatch.setattr(sources, "READ_SIZE", 4)
    blocks = blocks_of(b"aaaa", b"bbbb", b"cc\nd", b"\n", limit=1)
    assert [(block.line, block.data) for block in blocks] == [(1, b"aaaabbbbcc\n"), (2, b"d\n")]


def test_the_end_is_read_once():
    """A terminal says it only once; reading on would wait for a second Ctrl-D."""
    script = Script([b"1\n", b"", None, b"2\n"])
    assert [block.data for block in split_into_blocks("file", script, lambda: 10)] == [b"1\n"]


def test_the_limit_is_asked_for_each_block():
    limits = iter([1, 3, 1])
    blocks = list(split_into_blocks("file", Script([b"1\n2\n3\n4\n5\n"]), lambda: next(limits)))
    assert [block.data for block in blocks] == [b"1\n", b"2\n3\n4\n", b"5\n"]


def test_nothing_is_read_before_it_is_asked_for():
    script = Script([b"1\n", None, b"2\n"])
    iterator = split_into_blocks("file", script, lambda: 10)
    assert script.position == 0
    next(iterator)
    assert script.position == 2


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")), max_size=60),
    ended=st.booleans(),
    cuts=st.lists(st.integers(0, 1500), max_size=20),
    gaps=st.booleans(),
    limits=st.lists(st.integers(-1, 9), min_size=1, max_size=9),
    piece=st.integers(1, 200),
)
def test_blocks_are_the_file(lines, ended, cuts, gaps, limits, piece):
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    edges = sorted({0, len(data), *(edge for edge in cuts if edge < len(data))})
    pieces = [data[start:end] for start, end in pairwise(edges)]
    script = Script([part for piece in pieces for part in ((None, piece) if gaps else (piece,))])
    asked = []

    def limit():
        asked.append(max(1, limits[len(asked) % len(limits)]))
        return limits[(len(asked) - 1) % len(limits)]

    before, sources.READ_SIZE = sources.READ_SIZE, piece
    try:
        blocks = list(split_into_blocks("file", script, limit))
    finally:
        sources.READ_SIZE = before
    assert b"".join(block.data for block in blocks) == data
    assert [block.size for block in blocks] == [len(block.data) for block in blocks], "what is done, not what is read"
    line = 1
    for block, most in zip(blocks, asked, strict=True):
        assert block.line == line
        assert 1 <= len(block.data.split(b"\n")) - block.data.endswith(b"\n") <= most
        line += block.data.count(b"\n")
    assert all(block.data.endswith(b"\n") for block in blocks[:-1])


def test_a_pipe_gives_what_it_holds_and_knows_when_there_is_more():
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb", buffering=0) as end:
        descriptor = DescriptorReader(reader)
        assert not descriptor.ready()
        end.write(b"1\n")
        assert descriptor.ready()
        assert descriptor.read() == b"1\n"
        assert not descriptor.ready()
        end.close()
        assert descriptor.read() == b""
        assert descriptor.position == 2


def test_a_non_blocking_pipe_is_waited_for():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with open(reader, "rb"), open(writer, "wb", buffering=0) as end:
        thread = threading.Timer(0.05, end.write, [b"late\n"])
        thread.start()
        assert DescriptorReader(reader).read() == b"late\n"
        thread.join()


# ---- files -------------------------------------------------------------------------------------------------


def read(names, limit=1000):
    return [(block.name, block.line, block.data) for block in Source(list(map(str, names))).blocks(lambda: limit)]


def test_files_follow_each_other_and_number_their_own_lines(tmp_path):
    (tmp_path / "a").write_bytes(b"1\n2")
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "c").write_bytes(b"3\n")
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert read([a, b, c]) == [(a, 1, b"1\n"), (a, 2, b"2"), (c, 1, b"3\n")]
    assert Source([a, b, c]).total == 5


def test_gzip_by_suffix_with_many_members(tmp_path):
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(b"1\n2\n") + gzip.compress(b"3\n"))
    assert b"".join(data for _, _, data in read([file])) == b"1\n2\n3\n"
    source = Source([str(file)])
    assert sum(block.size for block in source.blocks(lambda: 1)) == source.total == file.stat().st_size


def test_the_blocks_of_a_compressed_file_have_even_shares_of_it(tmp_path):
    file = tmp_path / "many.jsonl.gz"
    random = Random(1)
    file.write_bytes(gzip.compress(b"".join(b"%d\n" % random.getrandbits(64) for _ in range(40_000))))
    blocks = list(Source([str(file)]).blocks(lambda: 100))
    sizes = [block.size for block in blocks]
    assert sum(sizes) == file.stat().st_size
    assert len(sizes) >= 400
    assert max(sizes) < 20 * sum(sizes) / len(sizes), "the first does not account for all that was read for it"


def test_a_truncated_gzip_file_is_an_error_after_what_could_be_read(tmp_path):
    file = tmp_path / "a.gz"
    data = b"".join(b"%d\n" % number for number in range(200_000))
    file.write_bytes(gzip.compress(data)[:-100])
    blocks = Source([str(file)]).blocks(lambda: 1000)
    got = next(blocks).data
    with pytest.raises(ReadError, match=r"a\.gz: cannot be read beyond line \d+: Compressed file ended"):
        got += b"".join(block.data for block in blocks)
    assert data.startswith(got)


def test_what_is_not_gzip_is_an_error(tmp_path):
    file = tmp_path / "a.gz"
    file.write_bytes(b'{"plain": true}\n')
    with pytest.raises(ReadError, match=r"a\.gz: cannot be read beyond line 0: Not a gzipped file"):
        read([file])


def test_a_file_that_vanished_meanwhile(tmp_path):
    file = tmp_path / "a"
    file.touch()
    source = Source([str(file)])
    file.unlink()
    with pytest.raises(ReadError, match="a: No such file or directory"):
        list(source.blocks(lambda: 1))


def test_a_missing_file_is_an_error_at_once(tmp_path):
    (tmp_path / "there").touch()
    with pytest.raises(UsageError, match="missing: No such file or directory"):
        Source([str(tmp_path / "there"), str(tmp_path / "missing")])


def test_a_directory_is_an_error_at_once(tmp_path):
    with pytest.raises(UsageError, match="is a directory"):
        Source([str(tmp_path)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_an_error_at_once(tmp_path):
    file = tmp_path / "secret"
    file.touch(mode=0)
    with pytest.raises(UsageError, match="Permission denied"):
        Source([str(file)])


def test_an_impossible_name_is_an_error_at_once():
    with pytest.raises(UsageError, match="null"):
        Source(["a\0b"])


def test_a_named_pipe_is_not_opened_before_its_turn(tmp_path):
    """Otherwise its writer would meet a reader that goes away."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    source = Source([str(pipe)])
    assert source.total is None
    writer = threading.Thread(target=pipe.write_bytes, args=(b"1\n",))
    writer.start()
    assert [block.data for block in source.blocks(lambda: 1)] == [b"1\n"]
    writer.join()
