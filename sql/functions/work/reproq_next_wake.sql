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
-- A queue with one stream, which its first and last entry in the claim index tell, is asked for its first task only.
declare
    v_now timestamptz;
    v_wake interval;
    v_is_plain boolean;
    v_since timestamptz;
begin
    if p_queues is null or cardinality(p_queues) = 0 or array_position(p_queues, null) is not null then
        perform _reproq_check_claim('reproq_next_wake', '-', p_queues, 1, interval '1 s', 0, null);
    end if;
    v_now := reproq_now();

    select coalesce(bool_and(f.limit_key = l.limit_key and f.priority = l.priority), true)
               and not exists (select from rate_limits r where r.tokens_per_second > 0 or r.throttled_until > v_now)
               and not exists (select from reproq_queue_controls c where c.queue_name = any (p_queues) and c.paused),
           min(f.since)
    into v_is_plain, v_since
    from unnest(p_queues) as q (name)
    cross join lateral (
        select t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after) as since
        from task_runs t
        where t.queue_name = q.name and t.status = 'READY' and t.blocked_on = ''
        order by t.queue_name, t.limit_key, t.priority desc, greatest(t.enqueued_at, t.run_after), t.result_id
        limit 1) f
    cross join lateral (
        select t.limit_key, t.priority
        from task_runs t
        where t.queue_name = q.name and t.status = 'READY' and t.blocked_on = ''
        order by t.queue_name desc, t.limit_key desc, t.priority, greatest(t.enqueued_at, t.run_after) desc,
                 t.result_id desc
        limit 1) l;
    if v_is_plain then
        v_wake := case when v_since is not null then greatest(v_since - v_now, interval '0') end;
    else
        with streams as materialized (
            select s.queue_name, s.limit_key, s.head_since from _reproq_streams(p_queues) s
        ), buckets as materialized (
            select d.queue_name, d.limit_key, b.next_token
            from (select distinct s.queue_name, s.limit_key from streams s) d
            cross join lateral _reproq_bucket(d.queue_name, d.limit_key, v_now) b
            where exists (select from rate_limits r where r.tokens_per_second > 0 or r.throttled_until > v_now)
        )
        select min(greatest(s.head_since - v_now, b.next_token, interval '0')) into v_wake
        from streams s
        left join buckets b on b.queue_name = s.queue_name and b.limit_key = s.limit_key;
    end if;

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
