create or replace function reproq_retry(p_result_id bigint) returns text
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- Runs a failed task again: READY now, its attempts counted from zero, its history kept. retried; already_active:
-- a READY or RUNNING task has the same spec; not_failed: it is not FAILED or CANCELLED, or others must succeed before
-- it (reproq_waits_for); missing. Steps behind it that ended as parent_failed
-- wait for it again; its chord is open again. Raises RQ003 unless READ COMMITTED.
-- Locks: its workflow row, the task, dependents, waiting at most two seconds each. Writes the audit log.
declare
    v_task task_runs%rowtype;
    v_now timestamptz;
begin
    perform reproq_require_read_committed();
    perform reproq_lock_workflows(array[p_result_id]);
    select t.* into v_task from task_runs t where t.result_id = p_result_id for no key update;
    if not found then
        return 'missing';
    elsif v_task.status not in ('FAILED', 'CANCELLED') or reproq_waits_for(v_task) is not null then
        return 'not_failed';
    end if;
    v_now := reproq_now();
    begin
        update task_runs t
        set status = 'READY', attempts = 0, lost_count = 0, run_after = v_now, updated_at = v_now,
            finished_at = null, failed_at = null, last_error = null, cancel_requested = false, started_at = null,
            expires_at = case when t.expires_at > v_now then t.expires_at end,
            last_token = gen_random_uuid(), last_answer = null
        where t.result_id = p_result_id;
    exception when unique_violation then
        return 'already_active';
    end;
    perform reproq_reopen(p_result_id);
    perform reproq_note('retry', jsonb_build_object('result_id', p_result_id));
    return 'retried';
end
$$;

revoke execute on function reproq_retry(bigint) from public;
comment on function reproq_retry(bigint) is
    'Runs a failed task again: retried, already_active (a twin is READY or RUNNING), not_failed (or an earlier step has to be retried) or missing. @v1';
