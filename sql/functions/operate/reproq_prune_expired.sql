create or replace function reproq_prune_expired(p_limit integer default null, p_dry_run boolean default false) returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- Deletes tasks with an expires_at in the past that have ended or never started; how many, or would be with
-- p_dry_run. Those that did not start end first, as in reproq_reclaim: what depends on them ends, too.
-- At most p_limit (null: 10,000) a call; call until 0. Never a running task, nor one that something depends on
-- (_reproq_is_needed; p_dry_run takes a task of a workflow that has not started for such a one).
-- Raises RQ001 on a bad p_limit, RQ003. Locks: the tasks, skip locked, then _reproq_try_end. Writes the audit log.
declare
    v_now timestamptz := reproq_now();
    v_limit bigint := coalesce(p_limit, 10000);
    v_count bigint;
begin
    perform _reproq_require_read_committed();
    perform _reproq_check_limit_argument('reproq_prune_expired', p_limit);
    if not p_dry_run then
        perform _reproq_end_overdue(v_limit::integer);
    end if;
    v_count := _reproq_delete_final(array(
        select t.result_id from task_runs t
        where t.expires_at < v_now and t.expires_at is not null and t.finished_at is not null
          and not _reproq_is_needed(t.result_id, t.workflow_id, t.status, null, t.expires_at)
        order by t.expires_at
        limit v_limit), p_dry_run);
    if p_dry_run then
        v_count := v_count + (
            select count(*)
            from (select from task_runs t
                  where t.status in ('READY', 'WAITING') and t.expires_at <= v_now
                    and not _reproq_is_needed(t.result_id, t.workflow_id, t.status, null, t.expires_at)
                  order by t.expires_at
                  limit v_limit - v_count) live);
    end if;
    if v_count > 0 and not p_dry_run then
        perform _reproq_write_audit('prune_expired', jsonb_build_object('deleted', v_count));
    end if;
    return v_count;
end
$$;

revoke execute on function reproq_prune_expired(integer, boolean) from public;
comment on function reproq_prune_expired(integer, boolean) is
    'Deletes tasks past their expires_at that have ended or never started, p_limit (10,000) a call; how many: call until 0. @0.1.0';
