create or replace function reproq_reclaim(p_limit integer default 100)
returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Housekeeping; any number of workers may call it at any time. Each part does at most p_limit tasks:
--   expired leases: READY after a backoff, or FAILED (lease_expiry, cancelled) when attempts are used up
--   READY and WAITING tasks past expires_at or with a cancel request: FAILED
--   missed dependents, which are steps and chords with predecessors that are final or deleted: moved
--   tasks blocked on keys that are free: unblocked
--   workers not seen for seven days that hold no lease: removed from the registry
--   throttles that ended more than an hour ago: forgotten
-- Returns ready or failed for each task it moved. Raises RQ001 on a bad p_limit, RQ003.
-- Locks: keys and workflow rows of expired leases, before anything else; from then on it never waits. Rows and keys that
-- another session holds are left to the next call and stop nothing else, however many there are.
begin
    perform _reproq_require_read_committed();
    if p_limit is null or p_limit < 1 then
        raise exception 'reproq_reclaim: p_limit must be at least 1, not %', coalesce(p_limit::text, 'null')
            using errcode = 'RQ001', hint = 'Pass 100.';
    end if;
    return query select r.* from _reproq_reclaim_leases(p_limit) r;
    return query select r.* from _reproq_end_overdue(p_limit) r;
    return query select r.* from _reproq_propagate_missed(p_limit) r;
    return query select r.* from _reproq_end_orphans(p_limit) r;
    perform _reproq_unblock_free(100, p_past_held => true);
    perform _reproq_remove_dead_workers(p_limit);
    perform _reproq_forget_throttles(p_limit);
end
$$;

revoke execute on function reproq_reclaim(integer) from public;
comment on function reproq_reclaim(integer) is
    'Reclaims expired leases, ends overdue tasks, moves missed dependents: ready or failed for each. @0.1.0';
