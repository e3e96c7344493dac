"""Compressed input and output, by each module that can do it; and where one is missing."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import sys

import pytest

from pidfdpool.cli import compression
from pidfdpool.cli.source import ReadError, Source
from pidfdpool.cli.usage import UsageError

DATA = b"".join(b"%d\n" % (number * 7919 % 10_007) for number in range(60_000))
COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def zstd_module(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is not installed")


def compress(suffix, data, module=None):
    if suffix in COMPRESS:
        return COMPRESS[suffix](data)
    return zstd_module(module).compress(data)


@pytest.fixture(
    params=[(".gz", None), (".bz2", None), (".xz", None), (".zst", "compression.zstd"), (".zst", "zstandard")],
    ids=lambda kind: kind[1] or kind[0],
)
def kind(request, monkeypatch):
    """Give a suffix and the module that it is to be read and written with."""
    suffix, module = request.param
    if module is not None:
        zstd_module(module)
        for other in {"compression.zstd", "zstandard"} - {module}:
            monkeypatch.setitem(sys.modules, other, None)
    return suffix, module


def read(path, limit=1000):
    return b"".join(block.data for block in Source([str(path)]).blocks(lambda: limit))


def test_several_streams_in_one_file(kind, tmp_path):
    file = tmp_path / f"a{kind[0]}"
    file.write_bytes(compress(kind[0], DATA[:100_000], kind[1]) + compress(kind[0], DATA[100_000:], kind[1]))
    source = Source([str(file)])
    blocks = list(source.blocks(lambda: 100))
    assert b"".join(block.data for block in blocks) == DATA
    assert sum(block.size for block in blocks) == source.total == file.stat().st_size


def test_an_empty_file_of_its_kind(kind, tmp_path):
    file = tmp_path / f"a{kind[0]}"
    file.write_bytes(compress(kind[0], b"", kind[1]))
    assert read(file) == b""


def test_a_file_that_was_cut(kind, tmp_path):
    file = tmp_path / f"a{kind[0]}"
    file.write_bytes(compress(kind[0], DATA, kind[1])[:-20])
    with pytest.raises(ReadError, match=r"a\.\w+: cannot be read beyond line \d+: Compressed file ended"):
        read(file)


def test_a_file_of_another_kind(kind, tmp_path):
    file = tmp_path / f"a{kind[0]}"
    file.write_bytes(b'{"plain": "but long enough for every header that there is"}\n')
    with pytest.raises(ReadError, match=r"a\.\w+: cannot be read beyond line 0: \w+"):
        read(file)


@pytest.mark.costly_table
def test_few_bytes_that_become_many_are_read_in_parts(kind, tmp_path):
    file = tmp_path / f"a{kind[0]}"
    line = b"x" * 4999 + b"\n"
    file.write_bytes(compress(kind[0], line * 10_000, kind[1]))
    sizes = [len(block.data) for block in Source([str(file)]).blocks(lambda: 1_000_000)]
    assert sum(sizes) == 50_000_000
    assert max(sizes) < 40_000_000


def test_what_is_written_can_be_read(kind, tmp_path):
    file = tmp_path / f"a{kind[0]}"
    compressor = compression.codec_of(file.name).compressor()
    file.write_bytes(
        b"".join(
            [*(compressor.compress(DATA[at : at + 1000]) for at in range(0, len(DATA), 1000)), compressor.flush()]
        )
    )
    assert read(file) == DATA
    assert file.stat().st_size < len(DATA) * 0.7


def test_a_compressed_pipe(kind, tmp_path):
    pipe = tmp_path / f"pipe{kind[0]}"
    os.mkfifo(pipe)
    pid = os.fork()
    if not pid:
        pipe.write_bytes(compress(kind[0], b"1\n2\n", kind[1]))
        os._exit(0)
    assert read(pipe) == b"1\n2\n"
    os.waitpid(pid, 0)


@pytest.mark.parametrize("name", ["a.jsonl", "a.gz.txt", "-", "gz", "a.GZ"])
def test_other_names_are_not_compressed(name):
    assert compression.codec_of(name) is None


@pytest.mark.parametrize(("suffix", "module"), [(".bz2", "bz2"), (".xz", "lzma"), (".gz", "gzip")])
def test_a_python_that_was_built_without_it(monkeypatch, suffix, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"a{suffix}: this Python was built without the module '{module}'"):
        compression.codec_of(f"a{suffix}")


def test_zstd_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    file = tmp_path / "a.zst"
    file.touch()
    with pytest.raises(UsageError, match=r"a\.zst: .*Python 3\.14.*python -m pip install zstandard"):
        Source([str(file)])
