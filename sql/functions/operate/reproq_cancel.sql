create or replace function reproq_cancel(p_result_id bigint) returns text
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- Cancels a task. cancelled: it was READY or WAITING and is now FAILED (kind cancelled), with all that waits
-- for it; it will never start. requested: it runs; its worker is told and stops it. terminal: it had ended.
-- missing: no such task. Raises RQ003 unless READ COMMITTED.
-- Locks: its workflow row, the task, dependents, waiting at most two seconds each. Writes the audit log.
declare
    v_status text;
begin
    perform _reproq_require_read_committed();
    perform _reproq_lock_workflows(array[p_result_id]);
    select t.status into v_status
    from task_runs t where t.result_id = p_result_id for no key update;
    if not found then
        return 'missing';
    elsif v_status = 'RUNNING' then
        update task_runs t set cancel_requested = true, updated_at = reproq_now(), revision = t.revision + 1
        where t.result_id = p_result_id and not t.cancel_requested;
        if found then
            perform _reproq_notify_control(jsonb_build_object('op', 'cancel', 'id', p_result_id));
        end if;
        perform _reproq_write_audit('cancel', jsonb_build_object('result_id', p_result_id, 'answer', 'requested'));
        return 'requested';
    elsif v_status in ('READY', 'WAITING') then
        perform _reproq_finish(array[p_result_id], null, array[
            jsonb_build_object('kind', 'cancelled', 'message', 'cancelled before it started')]);
        perform _reproq_write_audit('cancel', jsonb_build_object('result_id', p_result_id, 'answer', 'cancelled'));
        return 'cancelled';
    end if;
    return 'terminal';
end
$$;

revoke execute on function reproq_cancel(bigint) from public;
comment on function reproq_cancel(bigint) is
    'Cancels a task: cancelled (it never starts), requested (its worker stops it), terminal (it had ended) or missing. @0.1.0';
