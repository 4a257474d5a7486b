create or replace function _reproq_insert_task(
    p_result_id bigint, p_spec jsonb, p_hash text, p_run_after timestamptz, p_expires_at timestamptz, p_now timestamptz
) returns boolean
language plpgsql volatile parallel unsafe
as $$
-- Inserts a task with this hash; false when one that is READY or RUNNING has it. Notifies its queue.
-- Locks: waits for another session that has inserted that hash, or moves the task that has it.
declare
    v_queue_name text := p_spec ->> 'queue_name';
    v_task_path text := p_spec ->> 'task_path';
    v_lock_key text := p_spec ->> 'lock_key';
    v_concurrency_key text := p_spec ->> 'concurrency_key';
    v_limit_key text := _reproq_limit_key(p_spec ->> 'task_path');
    v_blocked_on text := '';
begin
    if coalesce(v_lock_key, v_concurrency_key) is not null then
        v_blocked_on := _reproq_blocked_from_start(v_queue_name, v_limit_key,
            (p_spec -> 'priority')::integer, greatest(p_now, p_run_after), v_lock_key, v_concurrency_key,
            (p_spec -> 'concurrency_limit')::integer, p_now);
    end if;
    insert into task_runs (result_id, queue_name, priority, run_after, spec_json, spec_hash, task_path, status,
        enqueued_at, updated_at, max_attempts, timeout_seconds, lock_key, concurrency_key, concurrency_limit,
        expires_at, limit_key, blocked_on, revision)
    values (p_result_id, v_queue_name, (p_spec -> 'priority')::integer, p_run_after, p_spec, p_hash, v_task_path, 'READY',
        p_now, p_now, (p_spec #> '{exec,max_attempts}')::integer, (p_spec #> '{exec,timeout_seconds}')::integer,
        v_lock_key, v_concurrency_key, (p_spec -> 'concurrency_limit')::integer, p_expires_at,
        v_limit_key, v_blocked_on, 1)
    on conflict (spec_hash) where status in ('READY', 'RUNNING') and length(spec_hash) = 64 do nothing;
    if found then
        perform _reproq_notify(v_queue_name);
        return true;
    end if;
    return false;
end
$$;

revoke execute on function _reproq_insert_task(bigint, jsonb, text, timestamptz, timestamptz, timestamptz) from public;
comment on function _reproq_insert_task(bigint, jsonb, text, timestamptz, timestamptz, timestamptz) is
    'Inserts one task unless an active one has its hash. @0.1.0';
