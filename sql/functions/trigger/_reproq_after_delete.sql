create or replace function _reproq_after_delete() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- After an unfinished task with a key was deleted: unblocks the next one blocked on that key.
begin
    if old.lock_key <> '' then
        perform _reproq_unblock('l:' || old.lock_key, 1);
    end if;
    if old.concurrency_key <> '' then
        perform _reproq_unblock('c:' || old.concurrency_key, 1);
    end if;
    perform _reproq_notify('');
    return null;
end
$$;

revoke execute on function _reproq_after_delete() from public;
comment on function _reproq_after_delete() is 'Trigger: releases the keys of a deleted task. @0.1.0';
