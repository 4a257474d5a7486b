create or replace function _reproq_build_plain_spec(
    p_task_path text, p_args jsonb, p_kwargs jsonb, p_queue_name text, p_priority integer
) returns jsonb
language sql stable parallel safe
as $$
-- _reproq_build_spec of a task that leaves all else at its defaults, as most do: those are one constant. Built key by
-- key a spec costs twice as much. Inlined.
select '{"v": 1, "takes_context": false, "lock_key": null, "concurrency_key": null, "concurrency_limit": 0,
         "run_after": null, "exec": {"timeout_seconds": 900, "max_attempts": 3},
         "provenance": {"code_ref": null, "pip_lock_hash": null}}'::jsonb
    || jsonb_build_object('task_path', p_task_path, 'args', p_args, 'kwargs', p_kwargs,
                          'queue_name', p_queue_name, 'priority', p_priority)
$$;

revoke execute on function _reproq_build_plain_spec(text, jsonb, jsonb, text, integer) from public;
comment on function _reproq_build_plain_spec(text, jsonb, jsonb, text, integer) is 'The spec of a task that has a queue and a priority, and defaults else. @0.1.0';
