"""Which task paths an allow-list covers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_listen.protocol import allowlist


@pytest.mark.parametrize(
    ("entries", "path", "allowed"),
    [
        (("myapp",), "myapp.tasks.send", True),
        (("myapp.",), "myapp.tasks.send", True),
        (("myapp.tasks.",), "myapp.tasks.send", True),
        (("myapp.tasks.send",), "myapp.tasks.send", True),
        (("*",), "os.system", True),
        (("other", "myapp"), "myapp.f", True),
        (("myapp",), "myapp_evil.f", False),
        (("myapp.tasks",), "myapp.tasks_evil.f", False),
        (("myapp.tasks.",), "myapp.tasks", False),
        (("myapp.tasks.send",), "myapp.tasks.sender", False),
        (("tasks",), "myapp.tasks.send", False),
        (("my*",), "myapp.f", False),
        (("",), "myapp.f", False),
        ((), "myapp.f", False),
        (("myapp",), "", False),
    ],
)
def test_prefixes_match_at_dots(entries: tuple[str, ...], path: str, *, allowed: bool) -> None:
    """Whole parts of a dotted path, never half a name; nothing listed, nothing allowed."""
    assert allowlist.allows(entries, path) is allowed


names = st.from_regex(r"[a-z_]{1,3}", fullmatch=True)
paths = st.lists(names, min_size=1, max_size=4)


@given(prefix=paths, path=paths)
def test_prefix_covers_exactly_the_paths_that_begin_with_its_parts(prefix: list[str], path: list[str]) -> None:
    """The rule, stated on lists of parts."""
    covered = path[: len(prefix)] == prefix
    assert allowlist.allows((".".join(prefix),), ".".join(path)) is covered


@pytest.mark.parametrize("entry", ["my app", ".", "", "a..b", "my*", "1st", "a.b.*"])
def test_entries_that_can_match_nothing_sensible_are_refused(entry: str) -> None:
    """The error names the entry."""
    with pytest.raises(ValueError, match="is not a module prefix"):
        allowlist.check_entries(("fine", entry))


def test_list_survives_the_way_to_the_child() -> None:
    """pack and unpack are inverse; blanks and empty entries that a person typed do not count."""
    entries = ("myapp.tasks.", "tasks", "*")
    allowlist.check_entries(entries)
    assert allowlist.unpack(allowlist.pack(entries)) == entries
    assert allowlist.unpack(" a , ,b.,") == ("a", "b.")
    assert allowlist.unpack("") == ()
