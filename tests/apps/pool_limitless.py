"""A module in whose copies no limit can be set."""

import resource


def refuse(*_: object) -> None:
    raise ValueError("not allowed to raise maximum limit")


resource.setrlimit = refuse
