create or replace function _reproq_requeue_failed(p_result_ids bigint[]) returns bigint[]
language plpgsql volatile parallel unsafe
as $$
-- From FAILED to READY: due now, attempts counted from zero, history kept; what depends on them waits again.
-- Returns the requeued ones; each other one has a READY or RUNNING duplicate, maybe another of these or not committed.
-- The caller holds the workflow rows and the tasks. Locks: waits for an uncommitted duplicate of another session, in
-- hash order as all who enqueue, until lock_timeout; then dependents (_reproq_reopen). Writes the audit log.
declare
    v_now timestamptz := reproq_now();
    v_back bigint[];
    v_id bigint;
begin
    with mine as materialized (
        select t.result_id, t.spec_hash from task_runs t where t.result_id = any (p_result_ids)
    ), firsts as materialized (
        select min(m.result_id) as result_id, m.spec_hash from mine m group by m.spec_hash
    )
    select coalesce(array_agg(f.result_id order by f.spec_hash), '{}') into v_back
    from firsts f
    where not exists (
        select from (
            select t.result_id from task_runs t
            where t.spec_hash between f.spec_hash and f.spec_hash and t.status in ('READY', 'RUNNING')
            order by t.spec_hash
            limit 1) duplicate);
    loop
        begin
            foreach v_id in array v_back loop
                update task_runs t
                set status = 'READY', attempts = 0, lost_count = 0, snooze_count = 0, run_after = v_now, updated_at = v_now,
                    finished_at = null, failed_at = null, last_error = null, cancel_requested = false, started_at = null,
                    expires_at = case when t.expires_at > v_now then t.expires_at end,
                    last_token = gen_random_uuid(), last_answer = null, revision = t.revision + 1
                where t.result_id = v_id;
            end loop;
            exit;
        exception when unique_violation or lock_not_available then
            v_back := array_remove(v_back, v_id);  -- its duplicate was committed just now, or is not yet: without this one
        end;
    end loop;
    perform _reproq_notify_claimable(v_back);
    foreach v_id in array v_back loop
        perform _reproq_reopen(v_id);
        perform _reproq_write_audit('retry', jsonb_build_object('result_id', v_id));
    end loop;
    return v_back;
end
$$;

revoke execute on function _reproq_requeue_failed(bigint[]) from public;
comment on function _reproq_requeue_failed(bigint[]) is
    'Requeues failed tasks that the caller holds; returns those without an active duplicate. @0.1.0';
