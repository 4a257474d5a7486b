"""`reproq-listen docs`: the pages that are shipped with the program."""

from __future__ import annotations

import difflib
import pydoc
import re
import sys
from collections.abc import Mapping
from importlib import resources

from reproq_listen.errors import ExitCode, SettingError

USAGE = """
How to enqueue, run, limit, watch and deploy tasks. Without a page: list the pages.

Usage:
  {program} docs [PAGE] [options]

Options:
{help}

In a terminal a page is shown with the pager that PAGER names; into a file or a pipe it is written
as it is.

Exit codes: 0 shown, 2 the page does not exist.
"""

_COMMENT = re.compile(r"^<!--.*?-->\n\n?", re.MULTILINE | re.DOTALL)


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """List the pages, or show one. Raises SettingError for a page that does not exist."""
    pages = read_pages()
    name = flags["PAGE"]
    if name is None:
        width = max(map(len, pages))
        for page, text in pages.items():
            print(f"{page:<{width}}  {title(text)}")
        print(f"\nRead one with: {program} docs PAGE")
    elif name not in pages:
        near = difflib.get_close_matches(str(name).lower(), pages, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise SettingError(f"there is no page {name!r}.{hint} The pages are: {', '.join(pages)}")
    elif sys.stdout.isatty():
        pydoc.pager(pages[str(name)])
    else:
        print(pages[str(name)], end="")
    return ExitCode.OK


def read_pages() -> dict[str, str]:
    """The text of each page by name, without comments; from the wheel or the checkout alike."""
    files = sorted(resources.files("reproq_listen").joinpath("docs").iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".md"): _COMMENT.sub("", file.read_text(encoding="utf-8"))
        for file in files
        if file.name.endswith(".md")
    }


def title(text: str) -> str:
    """The first line of a page, without its mark."""
    return text.partition("\n")[0].removeprefix("# ")
