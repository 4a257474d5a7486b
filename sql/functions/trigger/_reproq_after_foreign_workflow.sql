create or replace function _reproq_after_foreign_workflow() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- After a chord was updated past our functions: its callback starts or ends, if the end of the last member could not see to
-- that because another session held the chord. A callback that another session holds is left to _reproq_propagate_missed.
-- Locks: _reproq_try_end of the callback, without waiting.
begin
    if new.status in ('WAITING_CALLBACK', 'FAILED')
       and exists (select from task_runs t where t.result_id = new.callback_result_id and t.status || '' = 'WAITING')
       and _reproq_try_end(new.callback_result_id) then
        perform _reproq_propagate(array[new.callback_result_id]);
    end if;
    return null;
end
$$;

revoke execute on function _reproq_after_foreign_workflow() from public;
comment on function _reproq_after_foreign_workflow() is
    'Trigger: starts or ends the callback of a chord that another program updated. @0.1.0';
