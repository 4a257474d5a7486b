create or replace function reproq_prune_finished(
    p_older_than interval, p_limit integer default null, p_dry_run boolean default false
) returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- Deletes tasks that ended longer than p_older_than ago, oldest first; how many, or would be with p_dry_run.
-- At most p_limit (null: 10,000) a call; call until 0. Never a task that something depends on (_reproq_is_needed).
-- Occurrences of schedules that are gone go with them. Raises RQ001 on a negative p_older_than or a bad p_limit.
-- Locks: the tasks it deletes, skip locked. Writes the audit log.
declare
    v_until timestamptz;
    v_count bigint;
begin
    perform _reproq_check_limit_argument('reproq_prune_finished', p_limit);
    if p_older_than is null or p_older_than < interval '0' then
        raise exception 'reproq_prune_finished: p_older_than must be an interval from 0 on, not %',
            coalesce(p_older_than::text, 'null')
            using errcode = 'RQ001', hint = 'Pass for example interval ''30 days''.';
    end if;
    v_until := reproq_now() - p_older_than;
    v_count := _reproq_delete_final(array(
        select t.result_id from task_runs t
        where t.finished_at < v_until
          and not _reproq_is_needed(t.result_id, t.workflow_id, t.status, t.finished_at, null)
        order by t.finished_at
        limit coalesce(p_limit, 10000)), p_dry_run);
    if not p_dry_run then
        -- Loose index scan: one probe per schedule.
        with recursive names as (
            (select o.name from periodic_occurrences o order by o.name limit 1)
            union all
            select n.name
            from names s
            cross join lateral (
                select o.name from periodic_occurrences o where o.name > s.name order by o.name limit 1) n
        )
        delete from periodic_occurrences o
        where o.ctid = any (array(
            select g.ctid
            from names n
            cross join lateral (
                select o.ctid from periodic_occurrences o where o.name = n.name and o.scheduled_at < v_until) g
            where not exists (select from periodic_tasks p where p.name = n.name)
            limit coalesce(p_limit, 10000)));
    end if;
    if v_count > 0 and not p_dry_run then
        perform _reproq_write_audit('prune_finished', jsonb_build_object('deleted', v_count, 'older_than', p_older_than));
    end if;
    return v_count;
end
$$;

revoke execute on function reproq_prune_finished(interval, integer, boolean) from public;
comment on function reproq_prune_finished(interval, integer, boolean) is
    'Deletes tasks that ended longer than p_older_than ago, oldest first, p_limit (10,000) a call; how many: call until 0. @0.1.0';
