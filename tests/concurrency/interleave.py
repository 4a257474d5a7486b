"""A small isolation tester, after PostgreSQL's own: steps of two or three sessions in every possible order.

Each session works through its script in a thread of its own. An order says whose step is next. A step that waits for a
lock stays under way and the other sessions go on; a step of a session that still waits is put off until that
session is free, which makes the order one that the database allows. When all scripts have ended the test looks.

A *gate* opens the inside of a function: a session that has one stops in the middle of its step, where it is about to
write a certain change (its row locks held already), until the gate opens, which is one more step of every order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from itertools import combinations
from types import TracebackType
from typing import Any, Final, Self

import psycopg

from tests.concurrency.sessions import Session

STEP_SECONDS = 10
GATE = "gate"
# A point is the status that a row is about to get, or BLOCKED, or UNBLOCKED.
MAKE_GATE = """
    create function test_gate() returns trigger language plpgsql as $$
    begin
        if current_setting('reproq_test.gate', true) = any (array[
            case when new.status <> old.status then new.status end,
            case when new.blocked_on <> '' and old.blocked_on = '' then 'BLOCKED' end,
            case when new.blocked_on = '' and old.blocked_on <> '' then 'UNBLOCKED' end]) then
            perform pg_advisory_xact_lock_shared(-77);
        end if;
        return new;
    end $$;
    create trigger a_test_gate before update on task_runs for each row execute function test_gate();
"""

# What prepare() made is given to every step: ids, attempts, whatever the scenario needs.
Step = Callable[[Session, Any], Any]


def commit(session: Session, _made: Any) -> None:
    session.commit()


def rollback(session: Session, _made: Any) -> None:
    session.rollback()


def at_once(step: Step) -> Step:
    """A step and its commit as one step: fewer orders, where those with the third session's open are not the point."""

    def both(session: Session, made: Any) -> Any:
        answer = step(session, made)
        session.commit()
        return answer

    return both


def _open_gate(session: Session, _made: Any) -> None:
    session.rows("select pg_advisory_unlock(-77)")
    session.commit()


@dataclass
class Run:
    """One order that was run: what each step returned (or the psycopg.Error it raised), and which sessions waited."""

    order: str
    made: Any = None
    answers: dict[str, list[Any]] = field(default_factory=dict)
    waited: set[str] = field(default_factory=set)
    events: list[tuple[str, str, int]] = field(default_factory=list)

    def after(self, later: tuple[str, int], earlier: tuple[str, int]) -> bool:
        """Whether one step (session, number from 0) began when another had ended already."""
        return self.events.index(("began", *later)) > self.events.index(("ended", *earlier))

    def errors(self) -> list[psycopg.Error]:
        return [answer for said in self.answers.values() for answer in said if isinstance(answer, psycopg.Error)]


class Interleaver:
    """Sessions to one database that tests share; every order starts with empty tables."""

    def __init__(self, dsn: str, names: Sequence[str] = ("a", "b", "c", GATE)) -> None:
        self._sessions = {name: Session(dsn, name) for name in names}
        self._threads = {name: ThreadPoolExecutor(1, thread_name_prefix=name) for name in names}
        self._observer = psycopg.connect(dsn, autocommit=True)
        self._observer.execute(MAKE_GATE)
        self._observer.execute("set session_replication_role = replica")  # `clear` deletes without triggers
        self.look = Session(dsn, "look")
        self._gates: Mapping[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads.values():
            thread.shutdown(wait=False)
        for session in (*self._sessions.values(), self.look):
            session.close()
        self._observer.close()

    def clear(self) -> None:
        """Empty the tables for the next order."""
        self.look.rollback()
        self._observer.execute(
            "delete from task_runs; delete from workflow_runs; delete from rate_limits;"
            "delete from reproq_queue_controls; delete from reproq_workers; delete from reproq_unique_keys"
        )

    def every_order(
        self,
        prepare: Callable[[Session], Any],
        check: Callable[[Run, Session], None],
        *,
        gates: Mapping[str, str] | None = None,
        **scripts: Sequence[Step],
    ) -> list[Run]:
        """Run the scripts (of sessions a, b and c) in every order, and `check` what each leaves behind.

        `gates`: session to point; these sessions stop before they write such a change while the gate is shut. Orders
        in which the gate opens before anything else are those without a gate, and are left out. So are orders that are
        others with two sessions of one script exchanged.

        `prepare` works on an empty database and is committed. An error of a step is one of its answers: `check` must
        look at them; a deadlock fails at once. All tasks that are left after `check` must then be brought to an end
        by one more worker, or the order has lost one. Returns the runs, for checks over all of them.
        """
        gates = gates or {}
        if gates:
            scripts[GATE] = [_open_gate]
        runs = []
        for order in interleavings({name: len(script) for name, script in scripts.items()}):
            if order[0] == GATE or (not gates and is_mirrored(order, scripts)):
                continue
            run = Run(" ".join(order))
            try:
                self.clear()
                run.made = prepare(self.look)
                self.look.commit()
                self._set_gates(gates)
                self._play(order, scripts, run)
                self._check_run(run, check)
            except BaseException as error:
                error.add_note(f"in the order {run.order}; answers {run.answers}; waited: {sorted(run.waited)}")
                raise
            runs.append(run)
        return runs

    def _check_run(self, run: Run, check: Callable[[Run, Session], None]) -> None:
        assert not [error for error in run.errors() if error.sqlstate == "40P01"], "deadlock"
        check(run, self.look)
        self.look.commit()
        drain(self.look)

    def _set_gates(self, gates: Mapping[str, str]) -> None:
        if gates != self._gates:
            for name, session in self._sessions.items():
                session.rows("select set_config('reproq_test.gate', %s, false)", gates.get(name, ""))
                session.commit()
            self._gates = gates
        if gates:
            self._sessions[GATE].rows("select pg_advisory_lock(-77)")
            self._sessions[GATE].commit()

    def _play(self, order: Sequence[str], scripts: Mapping[str, Sequence[Step]], run: Run) -> None:
        left = list(order)
        at = dict.fromkeys(scripts, 0)
        running: dict[str, Future[Any]] = {}
        run.answers = {name: [] for name in scripts}
        deadline = time.monotonic() + STEP_SECONDS
        try:
            while left or running:
                assert time.monotonic() < deadline, f"not ended within {STEP_SECONDS} s: {sorted(running)}"
                self._collect(running, run)
                name = next((name for name in left if name not in running), None)
                if name is None:
                    continue
                left.remove(name)
                step = scripts[name][at[name]]
                run.events.append(("began", name, at[name]))
                at[name] += 1
                running[name] = self._threads[name].submit(self._answer, step, self._sessions[name], run.made)
                if not self._settled(name, running[name]):
                    run.waited.add(name)
        finally:
            for name, future in running.items():
                self._observer.execute("select pg_cancel_backend(%s)", [self._sessions[name].pid])
                future.exception(STEP_SECONDS)
            for name in scripts:
                self._sessions[name].rollback()
            if GATE in scripts and not run.answers[GATE]:
                _open_gate(self._sessions[GATE], None)

    @staticmethod
    def _answer(step: Step, session: Session, made: Any) -> Any:
        try:
            return step(session, made)
        except psycopg.Error as error:
            session.rollback()
            return error

    @staticmethod
    def _collect(running: dict[str, Future[Any]], run: Run) -> None:
        """Note what has ended; a moment's wait for it when all sessions are busy."""
        for name, future in list(running.items()):
            try:
                answer = future.result(0.002)
            except NotYet:
                continue
            run.events.append(("ended", name, len(run.answers[name])))
            run.answers[name].append(answer)
            del running[name]

    def _settled(self, name: str, future: Future[Any]) -> bool:
        """Wait until a step has ended (true) or waits for a lock (false)."""
        deadline = time.monotonic() + STEP_SECONDS
        while time.monotonic() < deadline:
            try:
                future.result(0.002)
            except NotYet:
                row = self._observer.execute(
                    "select cardinality(pg_blocking_pids(%s)) > 0", [self._sessions[name].pid]
                ).fetchone()
                if row is not None and row[0]:
                    return False
            else:
                return True
        raise AssertionError(f"a step of {name} neither ended nor waited for a lock within {STEP_SECONDS} s")


def interleavings(lengths: Mapping[str, int]) -> Iterator[list[str]]:
    """All orders of the sessions' steps that keep each session's own order."""
    names = [name for name, length in lengths.items() if length]
    if not names:
        yield []
    for name in names:
        for rest in interleavings({**lengths, name: lengths[name] - 1}):
            yield [name, *rest]


def is_mirrored(order: Sequence[str], scripts: Mapping[str, Sequence[Step]]) -> bool:
    """Whether of two sessions with the same script the later-named one begins."""
    return any(
        list(scripts[one]) == list(scripts[other]) and order.index(other) < order.index(one)
        for one, other in combinations(sorted(scripts), 2)
    )


def drain(session: Session, queues: Sequence[str] = ("default", "other")) -> None:
    """Be the last worker: resume, claim, complete and reclaim until nothing moves. Fails when a task is left.

    Leases still held are taken to have expired, future tasks to have become due, buckets to be full.
    """
    session.rows(EASE)
    while True:
        attempts = session.claim(100, queues)
        if attempts:
            answers = session.complete(*attempts)
            assert answers == ["ok"] * len(attempts), answers
        session.commit()
        if not attempts and not session.reclaim():
            break
    left = session.rows(
        "select result_id, status, blocked_on, parent_id, workflow_id from task_runs where finished_at is null"
        " union all select callback_result_id, status, '', null, workflow_id from workflow_runs"
        " where status in ('RUNNING', 'WAITING_CALLBACK')"
    )
    session.commit()
    assert left == [], f"left behind: {left}"


EASE: Final = """
    delete from reproq_queue_controls;
    update rate_limits set tokens_per_second = 0;
    update task_runs set leased_until = reproq_now() - interval '1 s' where status = 'RUNNING';
    update task_runs set run_after = null where status = 'READY' and run_after > reproq_now();
    commit
"""
