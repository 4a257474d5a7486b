create or replace function _reproq_after_foreign_insert() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- After a row was inserted past our functions: notifies the workers of a READY task, due now or later, blocked or not.
-- A step with a predecessor that has ended already starts or ends at once: rows of a chain may arrive one by one. What
-- ends while the step is being inserted, or is held, is left to _reproq_propagate_missed.
-- Locks: _reproq_try_end of the predecessor, without waiting.
begin
    if new.status = 'READY' then
        perform _reproq_notify(new.queue_name);
    elsif new.status = 'WAITING' and new.parent_id is not null and exists (
            select from task_runs t
            where t.result_id = new.parent_id and t.status || '' in ('SUCCESSFUL', 'FAILED', 'CANCELLED'))
          and _reproq_try_end(new.parent_id) then
        perform _reproq_propagate(array[new.parent_id]);
    end if;
    return null;
end
$$;

revoke execute on function _reproq_after_foreign_insert() from public;
comment on function _reproq_after_foreign_insert() is
    'Trigger: notifies workers of a task that another program inserted, and starts or ends a step that came late. @0.1.0';
