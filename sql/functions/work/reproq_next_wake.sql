create or replace function reproq_next_wake(p_queues text[]) returns interval
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- When a worker of these queues, none notified, should look again: 0 = a claim could start something now (it
-- stopped at its bound, or another session held the row); else the time to the next due task, token or lease end,
-- whichever is first; null = nothing known ahead. Paused queues and blocked tasks do not count: what
-- frees them notifies. Raises RQ001 on empty queues. Takes no lock, writes nothing.
declare
    v_now timestamptz;
    v_wake interval;
begin
    if p_queues is null or cardinality(p_queues) = 0 or array_position(p_queues, null) is not null then
        perform _reproq_check_claim('reproq_next_wake', '-', p_queues, 1, interval '1 s', 0, null);
    end if;
    v_now := reproq_now();

    select min(greatest(e.since - v_now, b.next_token, interval '0')) into v_wake
    from _reproq_earliest(p_queues) e
    left join lateral (
        select t.next_token
        from _reproq_bucket(e.queue_name, e.limit_key, v_now) t
        where exists (select from rate_limits r where r.tokens_per_second > 0 or r.throttled_until > v_now)) b on true;

    return least(v_wake, (
        select t.leased_until - v_now
        from task_runs t
        where t.leased_until > v_now
        order by t.leased_until
        limit 1));
end
$$;

revoke execute on function reproq_next_wake(text[]) from public;
comment on function reproq_next_wake(text[]) is
    'Time until a worker of these queues should claim again; 0 = now, null = nothing known ahead. @0.1.0';
