"""Sphinx extension: links from pages to files of the repository outside `docs` become plain code.

The pages are also read in the repository, where such a link opens the file. The site does not contain these files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

LINK = re.compile(r"\[(`?)([^\]`]+)`?\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")


def unlink(app: Sphinx, docname: str, content: list[str]) -> None:
    """Replace the links of a page that leave `docs`."""
    root = Path(app.srcdir)
    folder = root.joinpath(docname).parent

    def plain(match: re.Match[str]) -> str:
        inside = (folder / match[3]).resolve().is_relative_to(root)
        return match[0] if inside else f"{match[1]}{match[2]}{match[1]}"

    content[0] = LINK.sub(plain, content[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to the reading of pages."""
    app.connect("source-read", unlink)
    return {"parallel_read_safe": True}
