"""How Sphinx makes the site of these pages: `tox -e site` writes it to build/site.

The pages are written for two readers: the repository's own view, where links lead from file to file, and the site.
What only the site needs is done here, so that no page holds anything that the other view would show as it is.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.search import languages
from sphinx.search.en import SearchEnglish

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS / "_extension")]

from repository_pages import Parser  # noqa: E402

import pidfdpool  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCE = PROJECT.get("urls", {}).get("Source", "https://github.com/pidfdpool/pidfdpool").rstrip("/") + "/blob/main/"

project = "pidfdpool"
author = PROJECT["authors"][0]["name"]
copyright = author  # noqa: A001  the name is Sphinx's
version = release = pidfdpool.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings"]
exclude_patterns = ["README.md"]  # the front page includes it
default_role = "code"  # docstrings write `name`, as the pages do
highlight_language = "text"  # blocks whose fence names no language are commands with what they print
suppress_warnings = ["misc.highlighting_failure"]  # outputs that end in "..."

# ---- pages -----------------------------------------------------------------------------------------------------

myst_heading_anchors = 4  # the anchors that the repository's own view gives headings
smartquotes = False

# ---- the reference -----------------------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False

# ---- what the browser gets -----------------------------------------------------------------------------------------

html_theme = "furo"
html_title = f"pidfdpool {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_search_scorer = str(DOCS / "_extension" / "scorer.js")
html_show_search_summary = False  # it is fetched, which a browser refuses for pages that are opened from a disk
html_theme_options = {"navigation_with_keys": True}
html_domain_indices = False


ASKING = """
about am an any can cannot could do does doing don from get gets had has have how i its may me my on one or our
should so some than them under use using want we what when where which who whose why with would you your"""


class Questions(SearchEnglish):
    """Searches for what a question is about: the words that only make it a question are not looked for.

    A page is found if it has all words. With these, "how do I log from workers" would need a page that says "how".
    """

    stopwords = SearchEnglish.stopwords | frozenset(ASKING.split())


languages["en"] = Questions


def setup(app: Sphinx) -> None:
    """Have Markdown parsed by our parser, which needs to know where the repository can be seen."""
    app.add_config_value("repository_files", SOURCE, "env")
    app.add_source_parser(Parser, override=True)
