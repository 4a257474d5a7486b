create or replace function reproq_task_deleted() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- After an unfinished task with a key was deleted: the next one parked on that key comes back.
begin
    if old.lock_key <> '' then
        perform reproq_unpark('l:' || old.lock_key, 1);
    end if;
    if old.concurrency_key <> '' then
        perform reproq_unpark('c:' || old.concurrency_key, 1);
    end if;
    perform reproq_ring('');
    return null;
end
$$;

revoke execute on function reproq_task_deleted() from public;
comment on function reproq_task_deleted() is 'Trigger: lets go the keys of a deleted task. @v1';
