"""The measurements: interleaved, several rounds of each, since load comes in bursts and should hit all alike."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from tests.bench.measuring import Bound, Report
from tests.bench.peers.running import Program, TimeReceiver

PAUSE = 0.05  # seconds between two tasks for an idle worker
WARM_UP = 5
MAX_DEPTH_OF_CELERY = 20_000  # it enqueues one by one


def throughput(programs: Sequence[Program], receiver: TimeReceiver, rounds: int, seconds: float) -> Report:
    """No-op tasks a second with one worker, from the start of one task to the start of another far behind it.

    `stored_ms` is how much later the ends of all were stored: what a program collects before it writes. WAL and commits
    are those of claims and completions, from the worker's start to its end; a checkpoint precedes, so that WAL contains
    each touched page once. `stored_ms` and commits include this bench's few looks.
    """
    rates: dict[str, list[float]] = {program.variant.name: [] for program in programs}
    stored: dict[str, list[float]] = {name: [] for name in rates}
    wal: dict[str, list[float]] = {}
    commits: dict[str, list[float]] = {}
    for turn in range(rounds):
        for program in _in_turn(programs, turn):
            name, number = program.variant.name, round(program.variant.guess * seconds)
            filled = fill(program, receiver, number)
            before = program.counters()
            with program.workers():
                rates[name].append(rate(receiver, number))
                stored[name].append(program.wait_for_the_end() * 1e3)
            if program.variant.is_on_postgresql:
                bytes_, count = (after - start for after, start in zip(program.counters(), before, strict=True))
                wal.setdefault(name, []).append(bytes_ / filled)
                commits.setdefault(name, []).append(count / filled)
    numbers: dict[str, Any] = {
        "tasks_per_second": _medians(rates),
        "lowest_and_highest": {name: [round(min(found)), round(max(found))] for name, found in rates.items()},
        "stored_ms": _medians(stored),
        "wal_bytes_a_task": _medians(wal),
        "commits_a_task": {name: round(statistics.median(found), 2) for name, found in commits.items()},
    }
    return Report(numbers, _bounds(numbers["tasks_per_second"], "rate", "pgqueuer", "pool", 1 / 1.2))


def pick_up(programs: Sequence[Program], receiver: TimeReceiver, rounds: int) -> Report:
    """Milliseconds from before the producer's call until the task runs, one task at a time; all workers are idle."""
    times: dict[str, list[float]] = {program.variant.name: [] for program in programs}
    with ExitStack() as stack:
        for program in programs:
            program.call("clear")
            stack.enter_context(program.workers())
            program.call("send_time", receiver.path, "ready")
            receiver.receive("ready")
        for turn in range(rounds + WARM_UP):
            for program in _in_turn(programs, turn):
                threading.Event().wait(PAUSE)
                label = f"{program.variant.name} {turn}"
                began = program.call("send_time", receiver.path, label)["began"]
                taken = (receiver.receive(label) - began) * 1e3
                if turn >= WARM_UP:
                    times[program.variant.name].append(taken)
    medians = {name: round(statistics.median(found), 2) for name, found in times.items()}
    p99 = {name: round(statistics.quantiles(found, n=100)[98], 2) for name, found in times.items()}
    best = min((medians[name], name) for name in medians if name in ("pgqueuer", "procrastinate"))
    bounds = _bounds(medians, "pick-up", "pool", best[1], 1.25)
    if "pool" in p99:
        bounds.append(Bound("p99 ms of pool", p99["pool"], 5.0))
    return Report({"median_ms": medians, "p99_ms": p99, "best_of_the_peers_on_postgresql": best[1]}, bounds)


def enqueue(programs: Sequence[Program], rounds: int, number: int) -> Report:
    """Tasks a second that a producer enqueues: each with its own call and commit, and in bulk. No worker runs."""
    calls = {"one": number, "many": 10 * number}
    rates: dict[str, dict[str, list[float]]] = {call: {} for call in calls}
    wal: dict[str, dict[str, list[float]]] = {call: {} for call in calls}
    for turn in range(rounds):
        for program in _in_turn(programs, turn):
            for call, size in calls.items():
                if call == "many" and not program.variant.is_on_postgresql:
                    continue  # it has no such call
                program.call("clear")
                before, _ = program.counters()
                taken = program.call(call, size)["seconds"]
                rates[call].setdefault(program.variant.producer, []).append(size / taken)
                if program.variant.is_on_postgresql:
                    written = program.counters()[0] - before
                    wal[call].setdefault(program.variant.producer, []).append(written / size)
    numbers = {f"{call}_per_second": _medians(found) for call, found in rates.items()}
    numbers |= {f"{call}_wal_bytes_a_task": _medians(found) for call, found in wal.items()}
    bounds = _bounds(numbers["many_per_second"], "rate in bulk", "pgqueuer", "ours", 1.0)
    return Report(dict(numbers), bounds)


def depths(
    programs: Sequence[Program], receiver: TimeReceiver, rounds: int, seconds: float, sizes: Sequence[int]
) -> dict[str, Any]:
    """No-op tasks a second of one worker at several depths of the waiting queue."""

    def one(program: Program, depth: int) -> float | None:
        if not program.variant.is_on_postgresql and depth > MAX_DEPTH_OF_CELERY:
            return None
        number = min(round(program.variant.guess * seconds), depth)
        fill(program, receiver, number, behind=depth - number)
        with program.workers():
            return rate(receiver, number)

    return _sweep(programs, sizes, rounds, one)


def workers(
    programs: Sequence[Program], receiver: TimeReceiver, rounds: int, seconds: float, counts: Sequence[int]
) -> dict[str, Any]:
    """No-op tasks a second of several workers on one database. What warms up lasts until all have started."""

    def one(program: Program, count: int) -> float:
        number = round(program.variant.guess * seconds)
        fill(program, receiver, number, before=count * program.variant.guess)
        with program.workers(count):
            return rate(receiver, number)

    return _sweep(programs, counts, rounds, one)


def fill(program: Program, receiver: TimeReceiver, number: int, *, before: int | None = None, behind: int = 0) -> int:
    """Tasks that warm up, one that sends the time, `number` tasks, one that sends the time, and more behind.

    Returns how many these are.
    """
    program.call("clear")
    before = number // 4 if before is None else before
    program.call("many", before)
    program.call("send_time", receiver.path, "first")
    program.call("many", number)
    program.call("send_time", receiver.path, "last")
    if behind:
        program.call("many", behind)
    program.settle()
    return before + number + behind + 2


def rate(receiver: TimeReceiver, number: int) -> float:
    """Tasks a second between the two that send their time."""
    first = receiver.receive("first")
    return number / (receiver.receive("last") - first)


def _sweep(
    programs: Sequence[Program], sizes: Sequence[int], rounds: int, measure: Callable[[Program, int], float | None]
) -> dict[str, Any]:
    found: dict[str, dict[int, list[float]]] = {program.variant.name: {} for program in programs}
    for turn in range(rounds):
        for size in sizes:
            for program in _in_turn(programs, turn):
                measured = measure(program, size)
                if measured is not None:
                    found[program.variant.name].setdefault(size, []).append(measured)
    return {name: {size: round(statistics.median(rates)) for size, rates in by_size.items()}
            for name, by_size in found.items()}  # fmt: skip


def _in_turn(programs: Sequence[Program], turn: int) -> Iterable[Program]:
    return programs if turn % 2 else reversed(programs)


def _medians(found: dict[str, list[float]]) -> dict[str, int]:
    return {name: round(statistics.median(values)) for name, values in found.items()}


def _bounds(values: dict[str, Any], what: str, name: str, other: str, at_most: float) -> list[Bound]:
    """`name` divided by `other`, where both were measured."""
    if name not in values or other not in values:
        return []
    return [Bound(f"{what}, {name} / {other}", round(values[name] / values[other], 3), at_most)]
