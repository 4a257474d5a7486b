"""What the worker and its own executor agree on, beside the command line that every executor understands.

Read by both sides, so it imports nothing: the executor starts cold for every task.
"""

OUR_MODULE = "reproq_listen.executor"

RESULT_FD_ENV = "REPROQ_EXECUTOR_RESULT_FD"
"""Number of the pipe on which the executor sends its one result frame; absent: the envelope goes to stdout."""

ALLOW_ENV = "REPROQ_EXECUTOR_ALLOW"
"""The worker's allow-list, by commas. Absent: ALLOWED_TASK_MODULES, or its default."""

MARK_ENV = "REPROQ_ATTEMPT_MARK"
"""`<worker's random name>.<number>`: stays on all descendants of an attempt, so that they can be found."""

DEFAULT_ALLOWED = "myapp.tasks.,tasks."

REFUSAL_KINDS = frozenset({"invalid_spec", "invalid_result", "security_violation"})
"""Failure kinds that an executor may give in its envelope; everything else is `app_error`."""

FRAME_MAGIC = b"RQF1"
"""The envelope: the last frame."""
NOTE_MAGIC = b"RQN1"
"""Before it, any number of notes: JSON objects to be merged into the task's metadata."""
MAX_NOTE_BYTES = 64 << 10
FRAME_HEADER_BYTES = 8


def frame(body: bytes, magic: bytes = FRAME_MAGIC) -> bytes:
    """Wrap a body for the private pipe: magic, length (4 bytes, big-endian), body."""
    return magic + len(body).to_bytes(4, "big") + body
