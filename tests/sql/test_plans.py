"""What a call costs does not depend on the depth of the queue, on statistics, or on when its plan was made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString

import pytest

from tests.sql.plan_lab import DONE, Lab, Statistics, measure, nested_plans, open_lab
from tests.support.backlogs import RUNNING, add_backlog
from tests.support.database import Database, create_database, drop_database

TEN: LiteralString = """
    (select array_agg(1000000000 + n order by n) from generate_series(1, 10) n),
    (select array_agg(md5(n::text)::uuid order by n) from generate_series(1, 10) n)
"""
CLAIM: LiteralString = """
    select * from reproq_claim(p_worker_id => 'w', p_queues => '{default,quiet}', p_limit => 10, p_lease => '1 min'"""
ERRORS: LiteralString = """array_fill('{"kind": "app_error", "message": "no"}'::jsonb, array[10])"""

CALLS: dict[str, LiteralString] = {
    "claim": f"{CLAIM})",
    "claim by priority alone": f"{CLAIM}, p_aging_factor => 0)",
    "claim by a deadline": """
        select * from reproq_claim(p_worker_id => 'w', p_queues => '{deadlines}', p_limit => 10, p_lease => '1 min')""",
    "claim with a hint": f"""{CLAIM}, p_hint => '[{{"queue_name": "default", "limit_key": "", "priority": 1}}]')""",
    "claim that finds nothing": "select * from reproq_claim('w', '{none}', 10, '1 min')",
    "complete": f"select * from reproq_complete({TEN}, array_fill('1'::jsonb, array[10]))",
    "complete the holder of a lock key": "select * from reproq_complete('{2000000001}', array[md5('1')::uuid], '{1}')",
    "complete the holder of a place": "select * from reproq_complete('{2000000002}', array[md5('1')::uuid], '{1}')",
    "complete a member of a chord": "select * from reproq_complete('{3000000001}', array[md5('1')::uuid], '{1}')",
    "complete a step of a chain": "select * from reproq_complete('{4000000001}', array[md5('1')::uuid], '{1}')",
    "complete and claim": f"""
        select * from reproq_complete_and_claim({TEN}, array_fill('1'::jsonb, array[10]), null, null, 'w',
                                                '{{default,quiet}}', 10, '1 min')""",
    "fail for now": f"select * from reproq_fail({TEN}, {ERRORS}, array_fill(null::boolean, array[10]))",
    "fail for good": f"select * from reproq_fail({TEN}, {ERRORS}, array_fill(false, array[10]))",
    "release": f"select * from reproq_release({TEN})",
    "heartbeat": f"select * from reproq_heartbeat('w', {TEN}, '1 min')",
    "save metadata": f"select * from reproq_save_metadata({TEN}, array_fill('{{}}'::jsonb, array[10]))",
    "register": "select reproq_register_worker('w', 'host', 10, '{default}', '1')",
    "unregister": "select reproq_unregister_worker('w', gen_random_uuid())",
    "reclaim": "select * from reproq_reclaim(10)",
    "next wake": "select reproq_next_wake('{default,quiet}')",
    "next wake, by a deadline": "select reproq_next_wake('{deadlines}')",
    "cancel a ready task": "select reproq_cancel(1)",
    "cancel a blocked task": "select reproq_cancel(200001)",
    "cancel a waiting step": "select reproq_cancel(8000000001)",
    "cancel a running task": "select reproq_cancel(1000000001)",
    "limit a key": "select reproq_concurrency_set('few', 3)",
    "retry": "select reproq_retry(7000000001)",
    "retry what failed, a few at a time": "select * from reproq_retry_failed(p_limit => 10)",
    "replay": "select * from reproq_replay(7000000001)",
    "replay by the hash of a finished task": "select * from reproq_replay_by_hash(repeat('a', 64))",
    "set the limit of a path": "select reproq_limit_set('task:app.tasks.run', 1, 1)",
    "remove the limit of a path": "select reproq_limit_rm('task:app.tasks.run')",
    "explain": "select reproq_explain(200001)",
    "prune": "select reproq_prune_finished('0', p_limit => 10)",
    "prune that finds nothing": "select reproq_prune_finished('1 day')",
    "prune that finds nothing expired": "select reproq_prune_expired()",
    "enqueue": "select reproq_enqueue('app.tasks.run')",
    "enqueue ten": """select * from reproq_enqueue_many((
        select jsonb_agg(jsonb_build_object('task_path', 'app.tasks.run', 'args', jsonb_build_array(n)))
        from generate_series(1, 10) n))""",
    "enqueue and find it by its spec": """
        select reproq_enqueue('app.tasks.run', p_dedupe => true), reproq_enqueue('app.tasks.run', p_dedupe => true)""",
    "enqueue, find it by its key, use the key again": """
        select reproq_enqueue('app.tasks.run', p_unique_key => 'k'),
               reproq_enqueue('app.tasks.run', p_unique_key => 'k', p_on_duplicate => 'replace'),
               reproq_cancel(reproq_enqueue('app.tasks.run', p_unique_key => 'k', p_expires_at => now() + '1 day')),
               reproq_enqueue('app.tasks.run', p_unique_key => 'k')""",
    "enqueue ten with keys": """select * from reproq_enqueue_many((
        select jsonb_agg(jsonb_build_object('task_path', 'app.tasks.run', 'lock_key', 'busy', 'concurrency_key', 'few',
            'concurrency_limit', 1, 'unique_key', case when n % 2 = 0 then n::text end))
        from generate_series(1, 10) n))""",
    "enqueue behind a busy lock key": "select reproq_enqueue('app.tasks.run', p_lock_key => 'busy')",
    "enqueue behind a full key":
        "select reproq_enqueue('app.tasks.run', p_concurrency_key => 'few', p_concurrency_limit => 1)",
    "insert by hand": """select by_hand($$
        insert into task_runs (spec_json, spec_hash, lock_key)
        values ('{"task_path": "app.tasks.run"}', 'x', 'busy')$$)""",
    "insert a step by hand": """select by_hand($$
        insert into task_runs (spec_json, spec_hash, status, parent_id)
        select '{"task_path": "app.tasks.run"}', 'x', 'WAITING', t.result_id
        from task_runs t where t.result_id = 1$$)""",
    "insert a late step by hand": """select by_hand($$
        insert into task_runs (spec_json, spec_hash, status, parent_id)
        select '{"task_path": "app.tasks.run"}', 'x', 'WAITING', t.result_id
        from task_runs t where t.result_id = 7000000001$$)""",
    "delete the holder by hand": "select by_hand('delete from task_runs where result_id = 2000000001')",
    "reclaim by hand": "select by_hand($$update task_runs set status = 'READY' where result_id = 2000000001$$)",
    "count a member of a chord by hand": """select by_hand($$
        update workflow_runs set success_count = success_count + 1
        where workflow_id = '00000000-0000-0000-0000-000000000001'$$)""",
    "finish by hand": "select by_hand($$update task_runs set status = 'FAILED' where result_id = 2000000002$$)",
}  # fmt: skip


pytestmark = pytest.mark.timeout(120)  # the first test of each lab fills it


@pytest.fixture(
    scope="module",
    params=[(Statistics.NONE, False), (Statistics.EMPTY, True), (Statistics.HISTORY, True)],
    ids=[
        "never analysed",
        "analysed after a deletion, indexes of Django's side",
        "analysed between rushes, indexes of Django's side",
    ],
)
def lab(server_dsn: str, template: Database, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A filled database, built once for each kind of statistics; full statistics come last in each."""
    database = create_database(server_dsn, f"{template.name}_plans", template=template.name)
    statistics, extra = request.param
    with open_lab(database, CALLS, statistics=statistics, extra=extra) as opened:
        yield opened
    drop_database(server_dsn, database.name)


@pytest.mark.parametrize("call", CALLS)
def test_cost_does_not_grow_with_the_backlog(lab: Lab, call: str) -> None:
    """At a hundred times the backlog a call touches hardly more pages, and never reads all of task_runs.

    Hardly: each index is a level or two higher, and the few rows that are looked at stand on a page each. A call may
    write ten rows, whose new versions go into a dozen indexes: that is where the 200 pages come from.
    """
    bound = lab.small[call].pages * 2 + 200
    bad = {
        (statistics, session): cost
        for (statistics, session, name), cost in lab.large.items()
        if name == call and (cost.pages > bound or cost.full_scans > 0)
    }
    if bad:
        [*_, (_, session)] = bad
        plans = nested_plans(lab.sessions[session], CALLS[call])
        costs = "\n".join(f"{where}: {cost}" for where, cost in bad.items())
        pytest.fail(f"{lab.small[call]} of a small backlog became\n{costs}\nplans now:\n{plans}")


FINISHED: dict[str, LiteralString] = {
    "the view of queues": "select * from reproq_queues",
    "metrics": "select * from reproq_metrics()",
    "replay of an unknown hash": "select * from reproq_replay_by_hash(repeat('a', 64))",
    "a heartbeat": f"select * from reproq_heartbeat('w', {TEN}, '1 min')",
    "limit of a path": "select reproq_limit_set('task:app.tasks.run', 1, 1)",
}


@pytest.mark.parametrize("call", FINISHED)
@pytest.mark.parametrize("is_analysed", [False, True], ids=["never analysed", "analysed"])
def test_cost_does_not_depend_on_finished_tasks(database: Database, call: str, is_analysed: bool) -> None:
    """Twenty thousand of them, on a thousand pages, are not read by what looks at the others."""
    with database.connect() as owner, database.connect(autocommit=False) as session:
        owner.execute("alter table task_runs set (autovacuum_enabled = off)")
        add_backlog(owner, 10, {**RUNNING, "result_id": "1000000000 + n", "leased_by": "'w'"})
        measure(session, FINISHED[call])
        add_backlog(
            owner, 20_000, {**DONE, "spec_hash": "md5(n::text) || md5(n::text)", "result_id": "10000000000 + n"}
        )
        if is_analysed:
            owner.execute("vacuum analyze task_runs")
        cost = min(measure(session, FINISHED[call]) for _ in range(2))
    assert cost.full_scans == 0
    assert cost.pages < 600
