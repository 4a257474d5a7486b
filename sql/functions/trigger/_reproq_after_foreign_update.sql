create or replace function reproq_task_written_by_others() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- After a direct UPDATE moved a task where our functions would have done more (they change last_token, which is
-- how this trigger knows): an end goes through the door, a retry reopens what depends on it, and the keys of
-- a task that left RUNNING are let go. Not under the keys' locks, so it also rings: a claim looks again.
-- The UPDATE holds the row already, so it waits for nobody: what somebody holds is left to reproq_reclaim. Raises 55P03
-- when a retry cannot reopen what depends on it at once.
begin
    if new.status in ('SUCCESSFUL', 'FAILED', 'CANCELLED') and reproq_try_end(new.result_id) then
        perform reproq_settle(array[new.result_id]);
    elsif old.status in ('FAILED', 'CANCELLED') and new.status = 'READY' then
        if not reproq_try_reopen(new.result_id) then
            raise exception 'task_runs: somebody holds what depends on task %', new.result_id
                using errcode = '55P03', hint = 'Try again, or call reproq_retry, which waits.';
        end if;
        perform reproq_reopen(new.result_id);
    else
        perform reproq_let_go_keys(array[new.result_id]);
    end if;
    if new.lock_key <> '' or new.concurrency_key <> '' then
        perform reproq_ring('');
    end if;
    return null;
end
$$;

revoke execute on function reproq_task_written_by_others() from public;
comment on function reproq_task_written_by_others() is 'Trigger: draws the consequences of a status that was written directly. @v1';
