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
-- The caretaker; any number of workers may call it at any time. Each part does at most p_limit tasks:
--   expired leases: READY after a backoff, or FAILED (lease_expiry, cancelled) when attempts are used up
--   READY and WAITING tasks past expires_at or with a cancel request: FAILED
--   steps and chords whose predecessors are done or gone but that nobody moved: moved
--   tasks parked on keys that are free: un-parked
-- Returns ready or failed for each task it moved. Raises RQ001 on a bad p_limit, RQ003.
-- Locks: keys and workflow rows of expired leases, before anything else; from then on it waits for nobody. What
-- somebody holds is left to the next call, and stops nothing else.
begin
    perform reproq_require_read_committed();
    if p_limit is null or p_limit < 1 then
        raise exception 'reproq_reclaim: p_limit must be at least 1, not %', coalesce(p_limit::text, 'null')
            using errcode = 'RQ001', hint = 'Pass 100.';
    end if;
    return query select r.* from reproq_reclaim_leases(p_limit) r;
    return query select r.* from reproq_end_overdue(p_limit) r;
    return query select r.* from reproq_settle_stragglers(p_limit) r;
    return query select r.* from reproq_end_orphans(p_limit) r;
    perform reproq_unpark_free(100, p_past_held => true);
end
$$;

revoke execute on function reproq_reclaim(integer) from public;
comment on function reproq_reclaim(integer) is
    'Returns expired leases, ends overdue tasks, moves what was left behind: ready or failed for each. @v1';
