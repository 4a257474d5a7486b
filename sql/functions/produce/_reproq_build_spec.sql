create or replace function _reproq_build_spec(
    p_task_path text, p_args jsonb, p_kwargs jsonb, p_queue_name text, p_priority integer, p_run_after timestamptz,
    p_lock_key text, p_concurrency_key text, p_concurrency_limit integer, p_max_attempts integer,
    p_timeout_seconds integer, p_takes_context boolean, p_backoff_seconds jsonb
) returns jsonb
language sql stable parallel safe
as $$
-- spec_json (version 1): the same keys and spellings as Reproq Django writes, so that both make the same hash of the
-- same task. run_after as Python's isoformat in UTC. Inlined. _reproq_task_hash knows this shape.
select case
    when num_nonnulls(p_run_after, p_lock_key, p_concurrency_key, p_backoff_seconds) = 0 and p_concurrency_limit = 0
        and p_max_attempts = 3 and p_timeout_seconds = 900 and not p_takes_context
    then _reproq_build_plain_spec(p_task_path, p_args, p_kwargs, p_queue_name, p_priority)
    else jsonb_build_object(
        'v', 1, 'task_path', p_task_path, 'args', p_args, 'kwargs', p_kwargs, 'takes_context', p_takes_context,
        'queue_name', p_queue_name, 'priority', p_priority, 'lock_key', p_lock_key,
        'concurrency_key', p_concurrency_key, 'concurrency_limit', p_concurrency_limit,
        'run_after', replace(to_char(p_run_after at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00'), '.000000', ''),
        'exec', case when p_backoff_seconds is null
            then jsonb_build_object('timeout_seconds', p_timeout_seconds, 'max_attempts', p_max_attempts)
            else jsonb_build_object('timeout_seconds', p_timeout_seconds, 'max_attempts', p_max_attempts,
                                    'backoff_seconds', p_backoff_seconds) end,
        'provenance', '{"code_ref": null, "pip_lock_hash": null}'::jsonb)
    end
$$;

revoke execute on function _reproq_build_spec(text, jsonb, jsonb, text, integer, timestamptz, text, text, integer, integer, integer, boolean, jsonb) from public;
comment on function _reproq_build_spec(text, jsonb, jsonb, text, integer, timestamptz, text, text, integer, integer, integer, boolean, jsonb) is
    'The spec that an executor receives, from what a producer asked for. @0.1.0';
