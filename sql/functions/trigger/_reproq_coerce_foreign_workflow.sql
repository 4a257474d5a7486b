create or replace function _reproq_coerce_foreign_workflow() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_material = off set jit = off
as $$
-- Before a chord is updated past our functions: counts and status are those of its rows, whatever is written. A Go worker
-- adds one for a member whose end our triggers have counted already, and decides by what its UPDATE returns.
-- The UPDATE holds the row, so a member that ends at the same time waits, and then counts what this transaction wrote.
declare
    v_now timestamptz := reproq_now();
begin
    if _reproq_counts_are_recent(old, v_now) then
        new.status := old.status;
        new.success_count := old.success_count;
        new.failure_count := old.failure_count;
        new.updated_at := old.updated_at;
    else
        select s.status, s.success_count, s.failure_count into new.status, new.success_count, new.failure_count
        from _reproq_workflow_state(new, v_now) s;
    end if;
    return new;
end
$$;

revoke execute on function _reproq_coerce_foreign_workflow() from public;
comment on function _reproq_coerce_foreign_workflow() is
    'Trigger: gives a chord that another program updates the counts and the status of its rows. @0.1.0';
