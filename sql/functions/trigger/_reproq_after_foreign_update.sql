create or replace function _reproq_after_foreign_update() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- After a row was updated past our functions: does what they would have done. An end propagates, a retry reopens what
-- depends on it, and the keys of a task that left RUNNING are released. Notifies the workers of a task that became
-- claimable (READY, unblocked, moved to another stream, due earlier), and of a running one whose cancel is now requested.
-- Keys are not released under their locks, so workers are notified: a claim looks again.
-- The UPDATE holds the row already, so nothing here waits for a lock: rows that another session holds are left to
-- reproq_reclaim. Raises 55P03 when a retry cannot reopen what depends on it at once.
declare
    v_is_final constant boolean := new.status in ('SUCCESSFUL', 'FAILED', 'CANCELLED');
    v_was_final constant boolean := old.status in ('SUCCESSFUL', 'FAILED', 'CANCELLED');
begin
    if new.status <> old.status and (old.status = 'RUNNING' or v_is_final or v_was_final and new.status = 'READY') then
        if v_is_final and _reproq_try_end(new.result_id) then
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
        if v_is_final and new.notify_end then
            perform _reproq_notify_ended(array[new.result_id]);
        end if;
    end if;
    if new.status = 'READY' and new.blocked_on = ''
       and (old.status <> 'READY' or old.blocked_on <> ''
            or (old.queue_name, old.limit_key, old.priority) <> (new.queue_name, new.limit_key, new.priority)
            or greatest(new.enqueued_at, new.run_after) < greatest(old.enqueued_at, old.run_after)) then
        perform _reproq_notify(new.queue_name);
    elsif new.status = 'RUNNING' and new.cancel_requested and not old.cancel_requested then
        perform _reproq_notify_control(jsonb_build_object('op', 'cancel', 'id', new.result_id));
    end if;
    return null;
end
$$;

revoke execute on function _reproq_after_foreign_update() from public;
comment on function _reproq_after_foreign_update() is 'Trigger: propagates what another program wrote directly. @0.1.0';
