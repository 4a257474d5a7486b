create or replace function reproq_enqueue(
    p_task_path text,
    p_args jsonb default '[]',
    p_kwargs jsonb default '{}',
    p_queue_name text default 'default',
    p_priority integer default 0,
    p_run_after timestamptz default null,
    p_lock_key text default null,
    p_concurrency_key text default null,
    p_concurrency_limit integer default 0,
    p_max_attempts integer default 3,
    p_timeout_seconds integer default 900,
    p_expires_at timestamptz default null,
    p_takes_context boolean default false,
    p_dedupe boolean default true,
    p_backoff_seconds double precision default null
) returns bigint
language sql volatile parallel unsafe security definer
set search_path from current
as $$
-- Enqueues one task in the caller's transaction and returns it, or its active duplicate (a READY or RUNNING task
-- with the same spec) unless p_dedupe is false. Raises RQ002 on what cannot be a task. Locks: see
-- reproq_enqueue_many, which does the work.
select m.result_id
from reproq_enqueue_many(jsonb_build_array(jsonb_build_object(
    'task_path', p_task_path, 'args', p_args, 'kwargs', p_kwargs, 'queue_name', p_queue_name,
    'priority', p_priority, 'run_after', p_run_after, 'lock_key', p_lock_key,
    'concurrency_key', p_concurrency_key, 'concurrency_limit', p_concurrency_limit,
    'max_attempts', p_max_attempts, 'timeout_seconds', p_timeout_seconds, 'expires_at', p_expires_at,
    'takes_context', p_takes_context, 'dedupe', p_dedupe, 'backoff_seconds', p_backoff_seconds))) m
$$;

revoke execute on function reproq_enqueue(text, jsonb, jsonb, text, integer, timestamptz, text, text, integer, integer, integer, timestamptz, boolean, boolean, double precision) from public;
comment on function reproq_enqueue(text, jsonb, jsonb, text, integer, timestamptz, text, text, integer, integer, integer, timestamptz, boolean, boolean, double precision) is
    'Enqueues a task in the caller''s transaction; result_id of the new task, or of its READY or RUNNING duplicate. @0.1.0';
