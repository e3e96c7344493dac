"""The parser of the site's Markdown: links between files of the repository become links between pages of the site.

The pages are written for the repository's own view, where a link leads from a file to a file. In the site,
CHANGELOG.md and CONTRIBUTING.md are pages as well, README.md is the front page, and other files are in the repository
only.

Sphinx finds the parser by the name of this module: `:parser: repository_pages` of an include.
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
PAGES = {
    "CHANGELOG.md": "/changelog.rst",
    "CONTRIBUTING.md": "/contributing.rst",
    "README.md": "/index.rst",
    "docs/README.md": "/index.rst",
}
LINK = re.compile(r"(\]\(|^\[[^]]+\]: )([^)#\s]+)", re.MULTILINE)


def target_in_site(link: str, folder: Path, source: str) -> str:
    """Return where a link of a file in this folder leads in the site.

    Args:
        link: a path, relative to the folder, or an address.
        source: the address below which the repository's files can be seen.
    """
    if link.startswith(source):
        path = ROOT / link.removeprefix(source)
    elif re.match("[a-z]+:", link):
        return link
    else:
        path = (folder / link).resolve()
    if not path.exists() or not path.is_relative_to(ROOT):
        return link
    name = str(path.relative_to(ROOT))
    if name in PAGES:
        return PAGES[name]
    return f"/{path.relative_to(DOCS)}" if path.is_relative_to(DOCS) else source + name


class Parser(MystParser):
    """MyST's parser, behind a look at the links."""

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parse the text of a page, or of a file that a page includes."""
        source = document.settings.env.config.repository_files
        folder = Path(document["source"]).resolve().parent
        text = LINK.sub(lambda link: link[1] + target_in_site(link[2], folder, source), inputstring)
        super().parse(text, document)
