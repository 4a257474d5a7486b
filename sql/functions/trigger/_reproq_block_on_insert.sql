create or replace function _reproq_block_on_insert() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_material = off set jit = off
as $$
-- Before a READY task with a key is inserted: the ninth and later ones of a stream that wait for the same lock key,
-- and those after 8 + the limit (1,000 at most) of a concurrency key, are blocked at once, so that a backlog behind a
-- busy key never fills the claim index. When those before it are gone by the time this commits, the notification of the
-- insert wakes a claim that finds it (_reproq_unblock_free).
declare
    v_now timestamptz := reproq_now();
begin
    if greatest(new.enqueued_at, new.run_after) > v_now then
        new.blocked_on := '';
    elsif new.lock_key <> '' and _reproq_ready_backlog(
            'l:' || new.lock_key, new.queue_name, new.limit_key, new.priority, v_now, 8) >= 8 then
        new.blocked_on := 'l:' || new.lock_key;
    elsif new.concurrency_key <> '' and new.concurrency_limit > 0 and _reproq_ready_backlog(
            'c:' || new.concurrency_key, new.queue_name, new.limit_key, new.priority, v_now,
            8 + least(new.concurrency_limit, 1000)) >= 8 + least(new.concurrency_limit, 1000) then
        new.blocked_on := 'c:' || new.concurrency_key;
    else
        new.blocked_on := '';
    end if;
    return new;
end
$$;

revoke execute on function _reproq_block_on_insert() from public;
comment on function _reproq_block_on_insert() is 'Trigger: blocks a new task when a backlog already waits for its key. @0.1.0';
