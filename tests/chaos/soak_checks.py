"""What must be true of a soak, whatever was broken meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from tests.chaos.soak_record import LIMIT, Soak

_MOVES = {
    (None, "READY"), (None, "WAITING"),
    ("READY", "RUNNING"), ("READY", "FAILED"), ("WAITING", "READY"), ("WAITING", "FAILED"),
    ("RUNNING", "READY"), ("RUNNING", "SUCCESSFUL"), ("RUNNING", "FAILED"),
    ("FAILED", "READY"), ("FAILED", "WAITING"), ("READY", "WAITING"),
    ("SUCCESSFUL", None), ("FAILED", None),
}  # fmt: skip
_RESUMED = 1.0  # seconds after a frozen worker goes on until its executors are dead
_IN_FLIGHT = 0.5  # seconds that a claim may be under way when a queue is paused


@dataclass
class Execution:
    """One run of a task's function. Times by the system's monotonic clock."""

    result_id: int
    attempt: int
    pid: int
    ancestors: list[int]
    start: float
    seen: float
    """When it was alive for certain, the last time."""
    ended: bool = False


@dataclass
class Findings:
    """Violations, in words, and numbers of interest."""

    violations: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)


def check(soak: Soak, *, exclusion: bool = True) -> Findings:
    """Look for everything that must not be. `exclusion`: whether attempts must not overlap."""
    found = Findings()
    executions = list(read_journals(soak))
    moves: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in soak.history:
        moves[row["result_id"]].append(row)
    for result_id in soak.acknowledged:
        if result_id not in moves:
            found.violations.append(f"task {result_id} was acknowledged and is lost")
    for result_id, rows in moves.items():
        found.violations += [f"task {result_id}: {wrong}" for wrong in _wrong_moves(rows)]
    found.violations += _wrong_executions(soak, executions, moves)
    found.violations += _overlaps(soak, executions, found) if exclusion else []
    found.violations += _wrong_order(soak, executions, moves)
    found.violations += _broken_acknowledgements(soak)
    found.violations += _ignored_operators(soak, executions, moves)
    found.violations += soak.orphans + soak.deserters
    _count(soak, executions, moves, found)
    return found


def read_journals(soak: Soak) -> Iterator[Execution]:
    for path in soak.folder.iterdir():
        current: Execution | None = None
        for line in path.read_text().splitlines():
            moment, what, *rest = line.split()
            if what == "start":
                if current is not None:
                    yield current
                result_id, attempt, *ancestors = map(int, rest)
                current = Execution(result_id, attempt, int(path.name), ancestors, float(moment), float(moment))
            elif current is not None:
                current.seen = float(moment)
                current.ended = current.ended or what == "end"
        if current is not None:
            yield current


def _wrong_moves(rows: list[dict[str, Any]]) -> Iterator[str]:
    """One life of a task, in the order in which its row was written."""
    before: dict[str, Any] | None = None
    tokens: set[Any] = set()
    for row in rows:
        if (row["old_status"], row["new_status"]) not in _MOVES:
            yield f"moved from {row['old_status']} to {row['new_status']}"
        if before is not None and (row["old_status"], row["old_token"]) != (before["new_status"], before["new_token"]):
            yield f"was {before['new_status']} and became {row['new_status']} as if it had been {row['old_status']}"
        if row["new_status"] == "RUNNING":
            if row["new_token"] in tokens:
                yield f"token {row['new_token']} given twice"
            tokens.add(row["new_token"])
            if before is not None and row["attempts"] != before["attempts"] + 1:
                yield f"attempt {row['attempts']} claimed after {before['attempts']}"
        if row["answer"] == "lost" and row["old_status"] == "RUNNING" and row["at"] <= row["lease_end"]:
            yield f"lost its lease at {row['at']}, before {row['lease_end']}"
        if row["attempts"] > row["max_attempts"]:
            yield f"attempt {row['attempts']} of {row['max_attempts']}"
        before = row
    if before is not None and before["new_status"] not in ("SUCCESSFUL", "FAILED", None):
        yield f"is {before['new_status']} at the end"


def _wrong_executions(soak: Soak, executions: list[Execution], moves: dict[int, list[dict[str, Any]]]) -> Iterator[str]:
    """No execution without a claim of its own, no success without an execution that came to its end."""
    by_task: dict[int, list[Execution]] = defaultdict(list)
    for each in executions:
        by_task[each.result_id].append(each)
    for result_id, runs in by_task.items():
        claims = sum(row["new_status"] == "RUNNING" for row in moves[result_id])
        if len(runs) > claims:
            yield f"task {result_id} was executed {len(runs)} times and claimed {claims} times"
    for result_id, rows in moves.items():
        done = [row for row in rows if row["new_status"] == "SUCCESSFUL"]
        if done and not any(each.ended and each.attempt == done[-1]["attempts"] for each in by_task[result_id]):
            yield f"task {result_id} is SUCCESSFUL and attempt {done[-1]['attempts']} did not come to its end"


def _overlaps(soak: Soak, executions: list[Execution], found: Findings) -> Iterator[str]:
    """Attempts of one task, and holders of one key, beyond what may run side by side."""
    groups: dict[str, list[Execution]] = defaultdict(list)
    for each in executions:
        task = soak.acknowledged.get(each.result_id, {})
        groups[f"task {each.result_id}"].append(each)
        if "lock_key" in task:
            groups[f"lock key {task['lock_key']}"].append(each)
        if "concurrency_key" in task:
            groups[f"concurrency key {task['concurrency_key']}"].append(each)
    excused = 0
    for what, group in groups.items():
        limit = LIMIT if what.startswith("concurrency") else 1
        group.sort(key=lambda each: each.start)
        alive: list[Execution] = []
        for each in group:
            alive = [other for other in alive if other.seen >= each.start]
            awake = [other for other in alive if not _is_frozen(soak, other, each.start)]
            excused += len(alive) - len(awake)
            if len(awake) >= limit and not _is_frozen(soak, each, each.start):
                yield f"{what} has {len(awake) + 1} executions at {each.start}: {[*awake, each]}"
            alive.append(each)
    found.numbers["overlaps by frozen workers"] = excused


def _is_frozen(soak: Soak, execution: Execution, moment: float) -> bool:
    """Whether the worker of an execution was stopped then, or had just come back."""
    return any(pid in execution.ancestors and begin <= moment <= end + _RESUMED for pid, begin, end in soak.frozen)


def _wrong_order(soak: Soak, executions: list[Execution], moves: dict[int, list[dict[str, Any]]]) -> Iterator[str]:
    """Steps after the steps before them, callbacks after all members."""
    first: dict[int, float] = {}
    done: dict[int, float] = {}
    for each in executions:
        first[each.result_id] = min(each.start, first.get(each.result_id, each.start))
        if each.ended:
            done[each.result_id] = min(each.seen, done.get(each.result_id, each.seen))
    pairs = [pair for chain in soak.chains for pair in pairwise(chain)]
    pairs += [(member, callback) for members, callback in soak.chords for member in members]
    for before, after in pairs:
        succeeded = any(row["new_status"] == "SUCCESSFUL" for row in moves[before])
        if after in first and not (succeeded and done[before] <= first[after]):
            yield f"task {after} has started before task {before} succeeded"


def _broken_acknowledgements(soak: Soak) -> Iterator[str]:
    """Each result that the database acknowledged to a worker is stored, under the same token."""
    stored = {
        (row["result_id"], str(row["old_token"])[:8], row["new_status"])
        for row in soak.history
        if row["old_status"] == "RUNNING"
    }
    # A repeated failure or release is answered `already`: the log then cannot tell which it was.
    back, over = ("READY", "FAILED"), ("FAILED",)
    expected: dict[str, tuple[str, ...]] = {"task_success": ("SUCCESSFUL",), "task_cancelled": over}
    expected |= {"task_retry": back, "task_failed": back, "task_released": back}
    for worker in soak.workers:
        for event in worker.events:
            ends = expected.get(event.get("event", ""), ())
            if ends and not any((event["task_id"], event["lease"], end) in stored for end in ends):
                yield f"worker {worker.pid} logged {event['event']} of task {event['task_id']}, which is not stored"


def _ignored_operators(
    soak: Soak, executions: list[Execution], moves: dict[int, list[dict[str, Any]]]
) -> Iterator[str]:
    """A task cancelled before its start does not start, a paused queue gives nothing, old tokens end nothing."""
    wall = soak.wall_minus_monotonic
    for call in soak.calls:
        if call.what == "impersonate" and call.answer not in ("lost", "busy"):
            yield f"task {call.about} was ended under an old token: {call.answer}"
        if (call.what, call.answer) == ("cancel", "cancelled"):
            retried = any(row["old_status"] == "FAILED" and row["new_status"] for row in moves[int(call.about)])
            started = [e.start for e in executions if e.result_id == call.about and e.start > call.answered]
            if started and not retried:
                yield f"task {call.about} was cancelled at {call.answered} and started at {started}"
    queues = [call for call in soak.calls if call.what in ("pause", "resume")]
    for pause, resume in pairwise(queues):
        if pause.what == "pause" and resume.what == "resume" and pause.about == resume.about:
            for row in soak.history:
                at: datetime = row["at"]
                inside = pause.answered + _IN_FLIGHT < at.timestamp() - wall < resume.sent
                if inside and row["new_status"] == "RUNNING" and row["queue_name"] == pause.about:
                    yield f"task {row['result_id']} was claimed at {at} from the paused queue {pause.about}"


def _count(soak: Soak, executions: list[Execution], moves: dict[int, list[dict[str, Any]]], found: Findings) -> None:
    late = longest_lost = longest_again = 0.0
    for rows in moves.values():
        for index, row in enumerate(rows):
            if row["new_status"] != "RUNNING" or index + 1 == len(rows):
                continue
            left = rows[index + 1]
            if left["answer"] == "lost":
                late = max(late, (left["at"] - left["lease_end"]).total_seconds())
                longest_lost = max(longest_lost, (left["at"] - row["at"]).total_seconds())
                if index + 2 < len(rows) and rows[index + 2]["new_status"] == "RUNNING":
                    longest_again = max(longest_again, (rows[index + 2]["at"] - row["at"]).total_seconds())
    ends = [row["answer"] for row in soak.history if row["old_status"] == "RUNNING"]
    found.numbers |= {
        "tasks": len(moves),
        "executions": len(executions),
        "claims": sum(row["new_status"] == "RUNNING" for row in soak.history),
        "reclaimed": ends.count("lost"),
        "released": ends.count("released"),
        "replies cut off": soak.cuts,
        "stale tokens refused": sum(call.what == "impersonate" for call in soak.calls),
        "late ends refused": sum(
            event.get("event") == "lease_lost" and "lease" in event
            for worker in soak.workers
            for event in worker.events
        ),
        "longest from lease end to reclaim, s": round(late, 2),
        "longest from claim to reclaim, s": round(longest_lost, 2),
        "longest from claim to claim after a loss, s": round(longest_again, 2),
        "seconds to settle after the last fault": round(soak.seconds_to_settle, 1),
    }
