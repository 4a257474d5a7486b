create or replace function _reproq_after_foreign_update() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- After a direct UPDATE moved a task where our functions would have done more (they change last_token, which is
-- how this trigger knows): an end propagates, a retry reopens what depends on it, and the keys of a
-- task that left RUNNING are released. Not under the keys' locks, so it also notifies: a claim looks again.
-- The UPDATE holds the row already, so nothing here waits for a lock: rows that another session holds are left to
-- reproq_reclaim. Raises 55P03 when a retry cannot reopen what depends on it at once.
begin
    if new.status in ('SUCCESSFUL', 'FAILED', 'CANCELLED') and _reproq_try_end(new.result_id) then
        perform _reproq_propagate(array[new.result_id]);
    elsif old.status in ('FAILED', 'CANCELLED') and new.status = 'READY' then
        if not _reproq_try_reopen(new.result_id) then
            raise exception 'task_runs: another session holds rows that depend on task %', new.result_id
                using errcode = '55P03', hint = 'Try again, or call reproq_retry, which waits.';
        end if;
        perform _reproq_reopen(new.result_id);
    else
        perform _reproq_release_keys(array[new.result_id]);
    end if;
    if new.lock_key <> '' or new.concurrency_key <> '' then
        perform _reproq_notify('');
    end if;
    return null;
end
$$;

revoke execute on function _reproq_after_foreign_update() from public;
comment on function _reproq_after_foreign_update() is 'Trigger: propagates a status that another program wrote directly. @0.1.0';
