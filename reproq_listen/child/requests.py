"""Questions of a running task to its worker, which asks the database under the fence of the attempt.

Imported by the first question of a task, so that the others do not pay for it. Standard library only.
"""

from __future__ import annotations

import _thread
import json
import os
import select
from collections.abc import Callable
from typing import Any

from reproq_listen.protocol import executor as protocol


class RequestError(Exception):
    """The worker could not answer; the text says why."""


class LeaseLostError(RequestError):
    """The task belongs to another attempt, or to none: nothing that this one does counts any more."""


class Requests:
    """Sends requests one at a time, and waits for the reply to each."""

    def __init__(self, send: Callable[[bytes], None], fd: int) -> None:
        """`send` sends the body of a request, whole or not at all. `fd`: replies come from it."""
        self._send = send
        self._fd = fd
        self._number = 0
        self._is_waiting = False
        """Still set at the next request: a stop has interrupted a reply, and its rest may be on the way."""
        self._poll: select.poll | None = None
        self._lock = _thread.allocate_lock()

    def ask(self, op: str, arguments: dict[str, object] | None = None, raw: tuple[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
        """Give the value in the reply. `raw`: one more argument, which is JSON text already.

        Raises RequestError.
        """
        text = json.dumps({"op": op, **(arguments or {})})
        if raw is not None:
            text = f"{text[:-1]}, {json.dumps(raw[0])}: {raw[1]}}}"
        body = text.encode()
        if len(body) > protocol.MAX_REQUEST_BYTES - protocol.NUMBER_BYTES:
            raise RequestError(f"the request has {len(body)} bytes, which is too large")
        with self._lock:
            if self._is_waiting:
                raise RequestError("the task is being stopped: the reply to its last request was interrupted")
            self._number += 1
            number = self._number.to_bytes(protocol.NUMBER_BYTES, "big")
            self._is_waiting = True
            try:
                self._send(number + body)
                reply = self._receive(number)
            except OSError as error:
                self._is_waiting = False
                raise RequestError(f"the worker cannot be asked: {error}") from error
            self._is_waiting = False
        answer = json.loads(reply)
        if answer.get("lost"):
            raise LeaseLostError("the lease of this attempt is lost: the task may be running elsewhere")
        if "error" in answer:
            raise RequestError(answer["error"])
        return answer["value"]

    def _receive(self, number: bytes) -> bytes:
        """Give the reply to this request. An older one belongs to a task that was stopped."""
        while True:
            header = self._read(protocol.FRAME_HEADER_BYTES)
            if not header.startswith(protocol.REPLY_MAGIC):
                raise OSError("there is something other than a reply")
            body = self._read(int.from_bytes(header[len(protocol.REPLY_MAGIC) :], "big"))
            if body.startswith(number):
                return body[protocol.NUMBER_BYTES :]

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                more = os.read(self._fd, min(size - len(data), 1 << 20))
            except BlockingIOError:
                self._wait_for_input()
                continue
            if not more:
                raise OSError("the worker has closed the channel")
            data += more
        return bytes(data)

    def _wait_for_input(self) -> None:
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLIN)
        self._poll.poll()
