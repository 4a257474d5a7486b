create or replace function reproq_prune_expired(p_limit integer default null, p_dry_run boolean default false) returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- Deletes final tasks with an expires_at in the past; how many, or would be with p_dry_run. A task that expires before
-- it starts is first ended by a claim or reproq_reclaim. At most p_limit (null: 10,000) a call; call until 0.
-- Never a task that something depends on (_reproq_is_needed). Raises RQ001 on a bad p_limit.
-- Locks: the tasks it deletes, skip locked. Writes the audit log.
declare
    v_now timestamptz := reproq_now();
    v_count bigint;
begin
    perform _reproq_check_limit_argument('reproq_prune_expired', p_limit);
    v_count := _reproq_delete_final(array(
        select t.result_id from task_runs t
        where t.expires_at < v_now and t.expires_at is not null and t.finished_at is not null
          and not _reproq_is_needed(t.result_id, t.workflow_id, t.status, null, t.expires_at)
        order by t.expires_at
        limit coalesce(p_limit, 10000)), p_dry_run);
    if v_count > 0 and not p_dry_run then
        perform _reproq_write_audit('prune_expired', jsonb_build_object('deleted', v_count));
    end if;
    return v_count;
end
$$;

revoke execute on function reproq_prune_expired(integer, boolean) from public;
comment on function reproq_prune_expired(integer, boolean) is
    'Deletes final tasks past their expires_at, p_limit (10,000) a call; how many: call until 0. @0.1.0';
