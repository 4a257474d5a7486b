create or replace function _reproq_build_spec(p_task jsonb) returns jsonb
language sql stable parallel safe
as $$
-- spec_json (version 1) of a checked element of reproq_enqueue_many: the same keys and spellings as Reproq
-- Django writes, so that both make the same hash of the same task. run_after as Python's isoformat in UTC.
select jsonb_build_object(
    'v', 1,
    'task_path', p_task ->> 'task_path',
    'args', coalesce(nullif(p_task -> 'args', 'null'), '[]'),
    'kwargs', coalesce(nullif(p_task -> 'kwargs', 'null'), '{}'),
    'takes_context', coalesce((p_task ->> 'takes_context')::boolean, false),
    'queue_name', coalesce(p_task ->> 'queue_name', 'default'),
    'priority', coalesce((p_task ->> 'priority')::numeric::integer, 0),
    'lock_key', p_task ->> 'lock_key',
    'concurrency_key', p_task ->> 'concurrency_key',
    'concurrency_limit', coalesce((p_task ->> 'concurrency_limit')::numeric::integer, 0),
    'run_after', replace(to_char((p_task ->> 'run_after')::timestamptz at time zone 'UTC',
                                 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00'), '.000000', ''),
    'exec', jsonb_strip_nulls(jsonb_build_object(
        'timeout_seconds', coalesce((p_task ->> 'timeout_seconds')::numeric::integer, 900),
        'max_attempts', coalesce((p_task ->> 'max_attempts')::numeric::integer, 3),
        'backoff_seconds', p_task -> 'backoff_seconds')),
    'provenance', jsonb_build_object('code_ref', null, 'pip_lock_hash', null))
$$;

revoke execute on function _reproq_build_spec(jsonb) from public;
comment on function _reproq_build_spec(jsonb) is 'The spec that an executor receives, from what a producer asked for. @0.1.0';
