"""reproq-listen, but from SIGUSR1 on the name server does not answer for 20 seconds."""

from __future__ import annotations

import signal
import socket
import sys
import time
from typing import Any

from reproq_listen.cli import main as cli

look_up = socket.getaddrinfo
away = False


def go_away(*_: object) -> None:
    global away
    away = True


def look_up_or_hang(*args: Any, **named: Any) -> Any:
    if away:
        time.sleep(20)
    return look_up(*args, **named)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, go_away)
    socket.getaddrinfo = look_up_or_hang
    sys.exit(cli.main(sys.argv[1:]))
