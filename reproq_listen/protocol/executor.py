"""What the worker and its own executor agree on, in addition to the command line that every executor understands.

Both sides read it, so it imports nothing: the executor starts cold for every task.
"""

OUR_MODULE = "reproq_listen.executor"

RESULT_FD_ENV = "REPROQ_EXECUTOR_RESULT_FD"
"""Number of the socket on which the executor sends its result frame, and gets replies. Absent: the envelope goes to
stdout, and there is nothing to be asked."""

ALLOW_ENV = "REPROQ_EXECUTOR_ALLOW"
"""The worker's allow-list, separated by commas. Absent: ALLOWED_TASK_MODULES, or its default."""

TAG_ENV = "REPROQ_ATTEMPT_TAG"
"""`<random name of the worker>.<number of the child>`: all descendants inherit it, so that they can be found."""

DEFAULT_ALLOWED = "myapp.tasks.,tasks."

REFUSAL_KINDS = frozenset({"invalid_spec", "invalid_result", "security_violation"})
"""Failure kinds that an executor may put into its envelope."""

ASKED_KINDS = frozenset({"retry_asked", "snoozed", "throttled", "discarded", "completion_lost"})
"""Kinds of an envelope by which a task says how it should go on, with `after_seconds` or `until` (ISO 8601). Every
other kind is `app_error`. `completion_lost`: it has completed in its own transaction, so its success is stored already.
If the database has lost that transaction since, the attempt has failed."""

RESULT_MAGIC = b"RQF1"
"""Begins the frame of the envelope, which is the last one."""
METADATA_MAGIC = b"RQN1"
"""Begins a frame of metadata: a JSON object to be merged into the task's metadata. Any number, before the result."""
MAX_METADATA_BYTES = 64 << 10
REQUEST_MAGIC = b"RQQ1"
"""Begins a frame with a request of the task: its number, then a JSON object. The next one follows the reply."""
REPLY_MAGIC = b"RQA1"
"""Begins a frame from the worker to the task: the number of the request, then a JSON object with `value`, `error` or
`lost`."""
NUMBER_BYTES = 4
MAX_VALUE_BYTES = 1 << 20
"""Of the JSON text that one request stores."""
MAX_REQUEST_BYTES = MAX_VALUE_BYTES + (64 << 10)
FRAME_HEADER_BYTES = 8


def frame(body: bytes, magic: bytes = RESULT_MAGIC) -> bytes:
    """Wrap a body for the result pipe: magic, length (4 bytes, big-endian), body."""
    return magic + len(body).to_bytes(4, "big") + body
