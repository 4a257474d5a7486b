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
-- it (_reproq_waits_for; reproq_explain names the one to retry); missing. Steps behind it that ended as parent_failed
-- wait for it again; its chord is open again. Raises RQ003 unless READ COMMITTED.
-- Locks: its workflow row, the task, dependents, waiting at most two seconds each. Writes the audit log.
declare
    v_task task_runs%rowtype;
begin
    perform _reproq_require_read_committed();
    perform _reproq_lock_workflows(array[p_result_id]);
    select t.* into v_task from task_runs t where t.result_id = p_result_id for no key update;
    if not found then
        return 'missing';
    elsif v_task.status not in ('FAILED', 'CANCELLED') or _reproq_waits_for(v_task) is not null then
        return 'not_failed';
    elsif cardinality(_reproq_requeue_failed(array[p_result_id])) > 0 then
        return 'retried';
    elsif exists (select from task_runs t where t.spec_hash = v_task.spec_hash and t.status in ('READY', 'RUNNING')) then
        return 'already_active';
    end if;
    raise exception 'reproq_retry: another session holds a duplicate of task % that is not committed', p_result_id
        using errcode = '55P03', hint = 'Try again.';
end
$$;

revoke execute on function reproq_retry(bigint) from public;
comment on function reproq_retry(bigint) is
    'Runs a failed task again: retried, already_active (a duplicate is READY or RUNNING), not_failed (or an earlier step has to be retried) or missing. @0.1.0';
