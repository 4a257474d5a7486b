create or replace function _reproq_missed_dependent() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- After a step is inserted that waits for another: when that one has ended already, it starts or ends at once. Rows of
-- a chain may arrive one by one. What ends while the step is being inserted, or is held, is left to
-- _reproq_propagate_missed.
-- Locks: _reproq_try_end of the predecessor, without waiting.
declare
    v_status text;
begin
    select t.status into v_status from task_runs t where t.result_id = new.parent_id;
    if v_status in ('SUCCESSFUL', 'FAILED', 'CANCELLED') and _reproq_try_end(new.parent_id) then
        perform _reproq_propagate(array[new.parent_id]);
    end if;
    return null;
end
$$;

revoke execute on function _reproq_missed_dependent() from public;
comment on function _reproq_missed_dependent() is 'Trigger: moves a new step with a predecessor that has ended already. @0.1.0';
