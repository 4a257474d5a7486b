"""README, the shipped pages and the other documents as data: their code blocks, names in code font, links, headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.database import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "reproq_listen" / "docs"
PAGES = sorted(DOCS.glob("*.md"))
GENERATED = [path for path in PAGES if path.name.startswith("reference-")]
WRITTEN = [path for path in PAGES if path not in GENERATED]
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "docker" / "README.md", *WRITTEN]
"""All that people write and users read. A new page is found by itself."""

HARD_WORDS = re.compile(
    r"\b(so many|so often|so long|so much|whoever|be it|anew|beside|lest|nobody|somebody|cure)\b", re.IGNORECASE
)
"""Words that readers stumbled over (CONTRIBUTING.md, Names and words)."""

_FENCE = re.compile(r"^(?:<!-- (?P<mark>.*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]\n]+\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One code block of a document."""

    path: Path
    line: int
    language: str
    text: str
    not_run: str | None
    """Why it is not run; None: it is."""

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block, continued lines joined, comments and blank lines left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in map(_without_comment, lines) if line]

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.path.name}:{self.line}"


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s+)#( .*)?$", "", line).strip()


def ident(path: Path) -> str:
    """A document's name in test ids."""
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[Block]:
    """The fenced code blocks of a document. Raises AssertionError on one that is indented or has no language."""
    text = path.read_text()
    prose = _FENCE.sub("", text)
    assert not re.search(r"^(    )+\S", prose, re.M), f"{path.name}: use fenced code blocks, not indented ones"
    found = []
    for match in _FENCE.finditer(text):
        block = Block(path, text.count("\n", 0, match.start()) + 1, match["language"], match["text"], None)
        mark = match["mark"]
        if mark is not None:
            assert mark.startswith("not run: "), f"{block.where}: the comment must be: not run: REASON"
            block = Block(path, block.line, block.language, block.text, mark.removeprefix("not run: "))
        assert block.language, f"{block.where}: a code block says its language"
        found.append(block)
    return found


def spans(path: Path) -> list[str]:
    """What stands in code font outside of code blocks."""
    return _SPAN.findall(_FENCE.sub("", path.read_text()))


def links(path: Path) -> list[str]:
    """The targets of the links of a document."""
    return _LINK.findall(_FENCE.sub("", path.read_text()))


def anchors(path: Path) -> set[str]:
    """The headings of a document, as links name them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", path.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
