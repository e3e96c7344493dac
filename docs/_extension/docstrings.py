"""What autodoc is told of docstrings, signatures and base classes, which are written for `help()`.

Docstrings are plain text: `name` is code, a star is a star, and what is indented behind an empty line is an example.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx

import pidfdpool.pidfd

PUBLIC = [getattr(module, name) for module in (pidfdpool, pidfdpool.pidfd) for name in module.__all__]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect what is below, as Sphinx asks of an extension."""
    app.connect("autodoc-process-docstring", read_as_plain_text, priority=400)  # before Napoleon does, at 500
    app.connect("autodoc-process-signature", read_signature)
    app.connect("autodoc-process-bases", show_public_bases)
    return {"parallel_read_safe": True}


def read_as_plain_text(
    _app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Turn a docstring into reStructuredText: stars are no emphasis, and what is indented is an example."""
    text: list[str] = []
    for line in lines:
        quoted = line.split("`")
        quoted[::2] = [re.sub(r"\*(?=\S)", r"\\*", piece) for piece in quoted[::2]]  # f(*args)
        if line.startswith(" ") and len(text) > 1 and not text[-1] and not text[-2].startswith(" "):
            text += ["::", ""]
        text.append("`".join(quoted))
    lines[:] = text


def read_signature(
    _app: Sphinx,
    what: str,
    _name: str,
    _object: object,
    _options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Name the types of a signature by their last names, and write a class that is a default as its name.

    Errors have none: nobody but the pool makes them.
    """

    def plain(text: str | None) -> str | None:
        return text and re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", re.sub(r"~(?:\w+\.)+", "", text))

    return ("", None) if what == "exception" and signature else (plain(signature), plain(returns))


def show_public_bases(_app: Sphinx, _name: str, _object: object, _options: object, bases: list[type]) -> None:
    """Leave out base classes that are no public names."""
    inner = [base for base in bases if base.__module__.startswith("pidfdpool") and base not in PUBLIC]
    shown = [base for base in bases if base not in inner]
    bases[:] = shown or [above for base in inner for above in getattr(base, "__bases__", ())]
