create or replace function reproq_task_park() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_material = off set jit = off
as $$
-- Before a READY task with a key is inserted: the ninth and later ones of a stream that wait for the same lock key,
-- and those after 8 + the limit (1,000 at most) of a concurrency key, are born parked, so that a crowd behind a busy key
-- never stands in the claim index. Should those before it be gone by the time this commits, its bell makes a claim find
-- it (reproq_unpark_free).
declare
    v_now timestamptz := reproq_now();
begin
    if greatest(new.enqueued_at, new.run_after) > v_now then
        new.parked_on := '';
    elsif new.lock_key <> '' and reproq_ready_crowd(
            'l:' || new.lock_key, new.queue_name, new.limit_key, new.priority, v_now, 8) >= 8 then
        new.parked_on := 'l:' || new.lock_key;
    elsif new.concurrency_key <> '' and new.concurrency_limit > 0 and reproq_ready_crowd(
            'c:' || new.concurrency_key, new.queue_name, new.limit_key, new.priority, v_now,
            8 + least(new.concurrency_limit, 1000)) >= 8 + least(new.concurrency_limit, 1000) then
        new.parked_on := 'c:' || new.concurrency_key;
    else
        new.parked_on := '';
    end if;
    return new;
end
$$;

revoke execute on function reproq_task_park() from public;
comment on function reproq_task_park() is 'Trigger: parks a new task when a crowd waits for its key already. @v1';
