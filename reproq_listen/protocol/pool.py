"""How a worker and its pool children talk to each other. Both sides read it, so it imports next to nothing.

There are four channels, each with one purpose:

- the **socket**. The worker sends settings, then batches of tasks. The child sends single bytes that mean nothing but
  *read your result pipe*.
- the **token pipe**, which both sides can read. The worker writes one byte per task before it sends the batch; the
  child reads one before it starts a task. The kernel gives each byte to one reader only. So the worker takes tasks
  back by reading the bytes that are left: that many tasks, from the end of what it sent, have not started and never
  will.
- the **result pipe**. The child writes a record when a task ends, without waking the worker. So the results of a
  child are known even if it is killed a moment later.
- the **reply pipe**. The worker writes the reply to a request of the running task (a record), in the form of
  protocol/executor.py.

The value of a token is the number of its batch modulo 256. A child that reads the token of a later batch knows that
the rest of the present batch was taken back.
"""

import struct
from collections.abc import Iterator

from reproq_listen.protocol.executor import MAX_REQUEST_BYTES

SETTINGS_HEADER = struct.Struct("<I")
"""Length of the settings, which are JSON: `allowed`, `max_result_bytes`, `max_memory_bytes` (0: no limit)."""

BATCH_HEADER = struct.Struct("<IBd")
"""Length of the tasks that follow, number of the batch modulo 256, and when it was sent (monotonic seconds)."""

TASK = struct.Struct("<IqII")
"""Before each spec in a batch: slot, result id, attempt, length of the spec."""

RECORD = struct.Struct("<BIQQI")
"""Before each body on the result pipe: kind, slot, wall and CPU nanoseconds, length of the body."""

MAX_TASKS_PER_BATCH = 64
"""Also the most that a child is assigned at a time, so far fewer than 256 batches are under way."""

MAX_BATCH_AGE = 0.5
"""Seconds after which a child starts no task of a batch. A worker that runs takes back what waits for that time. So
this worker is stopped, and another one may have the tasks before it continues."""

# Kinds of records.
RETURNED = 1
"""The task succeeded; the body is the JSON text of its value."""
FAILED = 2
"""The task failed or was refused; the body is an envelope of the contract."""
STDOUT = 3
"""The task printed the body to standard output. Comes before the task's end."""
STDERR = 4
"""As STDOUT, for standard error."""
METADATA = 5
"""The running task saves metadata (TaskContext); the body is a JSON object."""
RETIRING = 6
"""The child asks to be replaced; the body is the reason. It starts no more tasks. If the slot is not 0, it has read
the token of that task too, and does not start it."""
REQUEST = 7
"""The running task asks the worker: the number of the request, then a JSON object."""
ENQUEUES = 8
"""The task succeeded and other tasks follow it; the body is an envelope of the contract with `enqueue`."""

ENDS = frozenset({RETURNED, FAILED, ENQUEUES})
KINDS = ENDS | {STDOUT, STDERR, METADATA, RETIRING, REQUEST}

MAX_OUTPUT_BYTES = 64 << 10
"""The largest body of a record that is neither an end nor a request."""

WAKE_BYTE = b"\n"


Record = tuple[int, int, int, int, bytes]
"""Kind, slot, wall and CPU nanoseconds, body."""


def records_in(buffer: bytearray, max_bytes: int) -> Iterator[Record]:
    """Take whole records off the front of `buffer`.

    Raises ValueError, with the reason, at bytes that are no record: an unknown kind, or a body that is too large for
    its kind (`max_bytes` for ends).
    """
    start, end = 0, len(buffer)
    try:
        while end - start >= RECORD.size:
            kind, slot, wall, cpu, size = RECORD.unpack_from(buffer, start)
            if kind not in KINDS:
                raise ValueError(f"a record of unknown kind {kind}")
            limit = max_bytes if kind in ENDS else MAX_REQUEST_BYTES if kind == REQUEST else MAX_OUTPUT_BYTES
            if size > limit:
                raise ValueError(f"a record of kind {kind} with {size} bytes")
            body = start + RECORD.size
            if end - body < size:
                return
            start = body + size
            yield kind, slot, wall, cpu, bytes(buffer[body:start])
    finally:
        del buffer[:start]
