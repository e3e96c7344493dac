"""Recognizes input that is JSON, but not one document per line, and tells how to convert it.

`shape_of` is called in workers and in the host, `hint` in the host, on its main thread. Both are pure.
"""

from __future__ import annotations

import shlex
from typing import Literal

from pidfdpool.cli.compression import SUFFIXES, suffix_of

Shape = Literal["", "array", "spread"]


def shape_of(first: bytes) -> Shape:
    """Return what a file seems to be whose first line this is, if the line failed.

    "array": all documents are in one array. "spread": a document is spread over several lines. "": neither.
    """
    line = first.removeprefix(b"\xef\xbb\xbf").strip()
    if line.startswith(b"["):
        return "array"
    return "spread" if line.startswith(b"{") and not line.endswith(b"}") else ""


def is_array_of_documents(line: bytes) -> bool:
    """Return whether a line is an array of objects or arrays, which is rarely meant as one document."""
    start = line.removeprefix(b"\xef\xbb\xbf").lstrip()
    return start.startswith(b"[") and start[1:].lstrip()[:1] in (b"{", b"[")


def hint(name: str, shape: Shape) -> str:
    """Return how to convert the file to one document per line."""
    what = "one JSON array" if shape == "array" else "JSON whose documents are spread over several lines"
    program = "jq -c '.[]'" if shape == "array" else "jq -c ."
    if name.startswith("<"):
        how = f"put {program} before this command: ... | {program} | python -m pidfdpool map ..."
        feed = "... |"
    else:
        quoted = shlex.quote(name)
        cat = SUFFIXES.get(suffix_of(name), "cat")
        how = f"{program} {quoted} > lines.jsonl" if cat == "cat" else f"{cat} {quoted} | {program} > lines.jsonl"
        feed = f"{cat} {quoted} |"
    text = f"hint: {name} seems to be {what}; map wants one document per line. To convert it: {how}"
    if shape == "array":
        code = "import json, sys; [print(json.dumps(each)) for each in json.load(sys.stdin)]"
        text += f"\nhint: without jq: {feed} python3 -c '{code}'"
    return text
