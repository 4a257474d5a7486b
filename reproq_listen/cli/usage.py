"""Help texts: the USAGE of a command with the options that it shares with others, laid out in two columns.

In a USAGE, `{worker}`, `{beat}`, `{operators}` and so on stand for the options of all settings that are `used_by` them,
and for -h. `{reason}` and `{help}` stand for one option each. `  --flag VALUE  Text` describes an option of the command
itself; its lines may have any length.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from reproq_listen.config import definitions
from reproq_listen.config.sources import Setting

WIDTH = 100
_MAX_FLAT = 20  # more options than this are shown under the headings of their groups
_TIE = "\N{NO-BREAK SPACE}"  # where no line may be broken
_HELP = "  -h --help  Show this."
_OPTION = re.compile(r"^  (-.*?) {2,}(.*(?:\n {3,}\S.*)*)", re.MULTILINE)


def fill(usage: str, program: str) -> str:
    """Replace the names in a USAGE and lay out its options."""
    commands = {name for setting in definitions.ALL for name in setting.used_by}
    blocks = {name: _block([setting for setting in definitions.ALL if name in setting.used_by]) for name in commands}
    reason = _option(definitions.REASON)
    return _laid_out(usage.format(program=program, reason=reason, help=_HELP, **blocks).strip())


def _block(settings: Sequence[Setting[Any]]) -> str:
    given = [setting for setting in settings if setting.flag]
    if len(given) <= _MAX_FLAT:
        return "\n".join([*map(_option, given), _HELP])
    by_group = sorted(given, key=lambda setting: [other.group for other in given].index(setting.group))
    groups = [f"{group}:\n" + "\n".join(map(_option, each)) for group, each in groupby(by_group, lambda s: s.group)]
    return "\n\n".join([*groups, _HELP])


def _option(setting: Setting[Any]) -> str:
    default = setting.default if setting.metavar and setting.default else setting.default_note
    known = [setting.variable or "", f"default:{_TIE}{default}" if default else ""]
    brackets = "; ".join(filter(None, known))
    return f"  {setting.flag} {setting.metavar}".rstrip() + f"  {setting.help}" + (f" ({brackets})" if brackets else "")


def _laid_out(text: str) -> str:
    """Descriptions of options wrapped in a column of their own."""
    column = max(len(flag) for flag, _ in _OPTION.findall(text)) + 4

    def lay_out(match: re.Match[str]) -> str:
        flag, description = match.groups()
        # A line that begins with a dash would be read as an option: no line breaks before one, nor inside `0 = never`.
        words = re.sub(r" (?=[-=])|(?<==) ", _TIE, re.sub(r"[ \n]+", " ", description))
        lines = textwrap.wrap(words, WIDTH - column, break_on_hyphens=False, break_long_words=False)
        head, *rest = [line.replace(_TIE, " ") for line in lines]
        return "\n".join([f"  {flag}".ljust(column) + head, *(" " * column + line for line in rest)])

    return _OPTION.sub(lay_out, text)
