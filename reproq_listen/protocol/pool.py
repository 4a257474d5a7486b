"""What a worker and its pool children say to each other. Read by both sides, so it imports next to nothing.

There are three channels, each with one purpose:

- the **link**, a stream socket. Down it go a greeting and then frames of tasks; up it come bytes that mean
  nothing but *look at your pipe*.
- the **token pipe**, readable by both sides. The worker puts in one byte a task before it sends the frame; the
  child takes one before it starts a task. The kernel gives each byte away once, so the worker takes tasks back
  by reading what is left: as many as it gets bytes, from the end of what it sent, have not started and never will.
- the **result pipe**. The child writes a record as each task ends, without waking anybody, so that what has
  ended is known even of a child that is killed a moment later.

A token's value is the number of its frame modulo 256: a child that finds the token of a later frame knows that
the rest of the present one was taken back.
"""

import struct
from collections.abc import Iterator

GREETING_HEADER = struct.Struct("<I")
"""Bytes of the greeting, which is JSON: `allowed`, `max_result_bytes`, `max_memory_bytes` (0: no limit)."""

BATCH_HEADER = struct.Struct("<IBd")
"""Bytes of records that follow, the number of the frame modulo 256, and when it was sent (monotonic seconds)."""

TASK = struct.Struct("<IqII")
"""Before each spec in a frame: slot, result id, attempt, bytes of the spec."""

RECORD = struct.Struct("<BIQQI")
"""Before each body on the result pipe: kind, slot, wall and CPU nanoseconds, bytes of the body."""

MAX_TASKS_PER_BATCH = 64
"""Also the most that a child may have in hand: far fewer than 256 frames can be on their way."""

MAX_FRAME_AGE = 0.5
"""Seconds after which no task of a frame is started. A worker that runs has long taken back what waits so long, so this
one stands still, and what it gave may be somebody else's before it goes on."""

# Kinds of records.
RETURNED = 1
"""The task succeeded; the body is the JSON text of its value."""
FAILED = 2
"""The task failed or was refused; the body is an envelope of the contract."""
STDOUT = 3
"""The task printed to standard output; the body is what. Comes before the task's end."""
STDERR = 4
"""As STDOUT, of standard error."""
METADATA = 5
"""What the task says of itself while it runs (TaskContext); the body is a JSON object."""
RETIRING = 6
"""The child wants to be replaced; the body says why. It starts no more tasks, nor that of the slot, whose token it has
taken; 0 is none."""

ENDS = frozenset({RETURNED, FAILED})
KINDS = frozenset({RETURNED, FAILED, STDOUT, STDERR, METADATA, RETIRING})

MAX_OUTPUT_BYTES = 64 << 10
"""The largest body of a record that is not an end."""

WAKE_BYTE = b"\n"


Record = tuple[int, int, int, int, bytes]
"""Kind, slot, wall and CPU nanoseconds, body."""


def records_in(buffer: bytearray, max_bytes: int) -> Iterator[Record]:
    """Take whole records off the front of `buffer`.

    Raises ValueError, with the reason, at something that is no record: an unknown kind, or a body larger than its
    kind may have (`max_bytes` for ends).
    """
    start, end = 0, len(buffer)
    try:
        while end - start >= RECORD.size:
            kind, slot, wall, cpu, size = RECORD.unpack_from(buffer, start)
            if kind not in KINDS:
                raise ValueError(f"a record of unknown kind {kind}")
            if size > (max_bytes if kind in ENDS else MAX_OUTPUT_BYTES):
                raise ValueError(f"a record of kind {kind} with {size} bytes")
            body = start + RECORD.size
            if end - body < size:
                return
            start = body + size
            yield kind, slot, wall, cpu, bytes(buffer[body:start])
    finally:
        del buffer[:start]
