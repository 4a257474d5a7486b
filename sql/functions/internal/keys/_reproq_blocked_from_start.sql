create or replace function _reproq_blocked_from_start(
    p_queue_name text, p_limit_key text, p_priority integer, p_ready_since timestamptz,
    p_lock_key text, p_concurrency_key text, p_concurrency_limit integer, p_now timestamptz
) returns text
language plpgsql stable parallel unsafe
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_material = off set jit = off
as $$
-- blocked_on of a new READY task with a key, so that a backlog behind a busy key never stands in the claim index: the
-- ninth and later tasks of a stream that wait for the same lock key, and those after 8 + the limit (1,000 at most) of a
-- concurrency key. Only tasks that are ready before it count; due and future tasks are treated alike, because a backlog
-- may become due all at once. Should those before it be gone by the time the insert commits, its notification makes a
-- claim find it (_reproq_unblock_free).
declare
    v_until constant timestamptz := greatest(p_ready_since, p_now);
    v_most constant integer := 8 + least(p_concurrency_limit, 1000);
begin
    if p_lock_key <> '' and _reproq_ready_backlog(
            'l:' || p_lock_key, p_queue_name, p_limit_key, p_priority, v_until, 8) >= 8 then
        return 'l:' || p_lock_key;
    elsif p_concurrency_key <> '' and p_concurrency_limit > 0 and _reproq_ready_backlog(
            'c:' || p_concurrency_key, p_queue_name, p_limit_key, p_priority, v_until, v_most) >= v_most then
        return 'c:' || p_concurrency_key;
    end if;
    return '';
end
$$;

revoke execute on function _reproq_blocked_from_start(text, text, integer, timestamptz, text, text, integer, timestamptz) from public;
comment on function _reproq_blocked_from_start(text, text, integer, timestamptz, text, text, integer, timestamptz) is
    'The key on which a new task is blocked because a backlog waits for it already; empty = none. @0.1.0';
