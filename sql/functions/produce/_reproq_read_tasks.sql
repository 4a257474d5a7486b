create or replace function _reproq_read_tasks(p_tasks jsonb, p_now timestamptz)
returns table (
    place bigint, task_path text, args jsonb, kwargs jsonb, queue_name text, priority integer, run_after timestamptz,
    lock_key text, concurrency_key text, concurrency_limit integer, max_attempts integer, timeout_seconds integer,
    expires_at timestamptz, takes_context boolean, backoff_seconds jsonb, dedupe boolean, unique_key text,
    unique_for interval, unique_while text, on_duplicate text
)
language sql stable parallel safe
as $$
-- Checked elements of reproq_enqueue_many as columns, with the defaults filled in. Inlined, so that a caller pays for
-- the columns that it reads.
select e.place, e.task_path, coalesce(e.args, '[]'), coalesce(e.kwargs, '{}'), coalesce(e.queue_name, 'default'),
       coalesce(e.priority::integer, 0),
       case when e.delay is null then e.run_after else p_now + _reproq_duration(e.delay) end,
       e.lock_key, e.concurrency_key, coalesce(e.concurrency_limit::integer, 0), coalesce(e.max_attempts::integer, 3),
       coalesce(e.timeout_seconds::integer, 900), e.expires_at, coalesce(e.takes_context, false), e.backoff_seconds,
       coalesce(e.dedupe, false), e.unique_key, _reproq_duration(e.unique_for), coalesce(e.unique_while, 'queued'),
       coalesce(e.on_duplicate, 'keep')
from rows from (jsonb_to_recordset(p_tasks) as (
    task_path text, args jsonb, kwargs jsonb, queue_name text, priority numeric, run_after timestamptz, delay jsonb,
    lock_key text, concurrency_key text, concurrency_limit numeric, max_attempts numeric, timeout_seconds numeric,
    expires_at timestamptz, takes_context boolean, backoff_seconds jsonb, dedupe boolean, unique_key text,
    unique_for jsonb, unique_while text, on_duplicate text))
    with ordinality as e (
    task_path, args, kwargs, queue_name, priority, run_after, delay,
    lock_key, concurrency_key, concurrency_limit, max_attempts, timeout_seconds,
    expires_at, takes_context, backoff_seconds, dedupe, unique_key,
    unique_for, unique_while, on_duplicate, place)
$$;

revoke execute on function _reproq_read_tasks(jsonb, timestamptz) from public;
comment on function _reproq_read_tasks(jsonb, timestamptz) is 'Elements of reproq_enqueue_many as columns, with defaults. @0.1.0';
