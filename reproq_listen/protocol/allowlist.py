"""Which task paths may run: prefixes that match whole parts of a dotted path, never part of a name.

`myapp.tasks` and `myapp.tasks.` both allow `myapp.tasks.send`, and neither allows `myapp.tasks_evil.send`.
`*` alone allows everything; an empty list allows nothing. The worker and the executor both check the very path that
is executed. Nothing is imported: the executor starts cold.
"""

EVERYTHING = "*"


def check_entries(entries: tuple[str, ...]) -> None:
    """Raise ValueError, naming the entry, if one of them is neither `*` nor a dotted name."""
    for entry in entries:
        name = entry.removesuffix(".")
        if entry != EVERYTHING and not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(
                f"{entry!r} is not a module prefix: write a dotted name such as myapp.tasks, or * to allow all"
            )


def allows(entries: tuple[str, ...], path: str) -> bool:
    """Whether one of the entries covers this path."""
    return any(
        entry == EVERYTHING or path == entry or path.startswith(entry.removesuffix(".") + ".")
        for entry in entries
        if entry
    )


def pack(entries: tuple[str, ...]) -> str:
    """Write the list as one text, for the executor's environment."""
    return ",".join(entries)


def unpack(text: str) -> tuple[str, ...]:
    """Read a list that `pack` or a person wrote: blanks around entries, and empty entries, are ignored."""
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())
