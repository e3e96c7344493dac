"""Documents have about the size that was asked for, made up or real."""

from __future__ import annotations

import json

import pytest

from benchmarks.documents import VARIABLE, documents, source


@pytest.mark.parametrize("size", [1000, 50_000])
def test_made_up_documents_have_the_size_and_are_the_same_each_time(size, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    batch = documents(size, 30)
    assert len(batch) == 30
    assert batch == documents(size, 30)
    for document in batch:
        assert json.loads(document)
        assert 0.7 * size < len(document) < 1.4 * size
    assert source() == "made up"


def test_pieces_of_real_documents_have_the_size(monkeypatch, tmp_path):
    rows = [{"row": number, "text": "x" * (number % 90), "inner": {"deep": [number] * 40}} for number in range(3000)]
    (tmp_path / "rows.json").write_text(json.dumps({"kind": "rows", "rows": rows}))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    batch = documents(5000, 20)
    assert len(set(batch)) == 20
    for document in batch:
        assert b"deep" in document
        assert json.loads(document)
        assert 2500 < len(document) < 7000
    assert source() == "rows.json"


def test_a_size_that_no_real_document_has_is_made_up(monkeypatch, tmp_path):
    (tmp_path / "small.json").write_text("[1, 2, 3]")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert all(0.7 * 5000 < len(document) < 1.4 * 5000 for document in documents(5000, 3))
