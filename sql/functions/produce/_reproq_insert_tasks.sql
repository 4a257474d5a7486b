create or replace function _reproq_insert_tasks(
    p_result_ids bigint[], p_specs jsonb[], p_hashes text[], p_tasks jsonb[], p_statuses text[],
    p_parent_ids bigint[], p_wait_counts integer[], p_workflow_id uuid
) returns void
language plpgsql volatile parallel unsafe
as $$
-- The one INSERT of produced tasks. Element by element: id (allotted by the caller), spec, hash, what the producer
-- asked for, status (READY, WAITING), predecessor, number waited for. A duplicate that is active is left out, silently.
-- Locks: waits for an uncommitted duplicate of another session, in hash order.
declare
    v_now timestamptz := reproq_now();
begin
    insert into task_runs (result_id, queue_name, priority, run_after, spec_json, spec_hash, task_path, status,
        enqueued_at, max_attempts, timeout_seconds, lock_key, concurrency_key, concurrency_limit, expires_at,
        parent_id, wait_count, workflow_id)
    select u.id, u.spec ->> 'queue_name', (u.spec ->> 'priority')::integer, (u.task ->> 'run_after')::timestamptz,
           u.spec, u.hash, u.spec ->> 'task_path', u.status, v_now, (u.spec #>> '{exec,max_attempts}')::integer,
           (u.spec #>> '{exec,timeout_seconds}')::integer, u.spec ->> 'lock_key', u.spec ->> 'concurrency_key',
           (u.spec ->> 'concurrency_limit')::integer, (u.task ->> 'expires_at')::timestamptz,
           u.parent_id, coalesce(u.wait_count, 0), p_workflow_id
    from unnest(p_result_ids, p_specs, p_hashes, p_tasks, p_statuses, p_parent_ids, p_wait_counts)
         with ordinality as u (id, spec, hash, task, status, parent_id, wait_count, place)
    order by u.hash, u.place
    on conflict (spec_hash) where status in ('READY', 'RUNNING') do nothing;
end
$$;

revoke execute on function _reproq_insert_tasks(bigint[], jsonb[], text[], jsonb[], text[], bigint[], integer[], uuid) from public;
comment on function _reproq_insert_tasks(bigint[], jsonb[], text[], jsonb[], text[], bigint[], integer[], uuid) is
    'Inserts prepared tasks; duplicates of active tasks are left out. @0.1.0';
