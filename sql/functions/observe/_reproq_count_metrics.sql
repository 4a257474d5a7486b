create or replace function _reproq_count_metrics()
returns table (metric text, label text, value double precision)
language plpgsql volatile parallel unsafe
as $$
-- What reproq_metrics answers, counted now. Bounded: at most about 100,000 rows of each kind (READY, blocked, RUNNING,
-- WAITING) and 1,000 queues. Takes no lock, writes nothing.
declare
    v_now timestamptz := reproq_now();
    v_most constant integer := 100000;
    v_queues text[];
    v_cap integer;
begin
    -- Loose index scan: one probe per queue.
    with recursive queues as (
        (select t.queue_name
         from task_runs t
         where t.status = 'READY' and t.blocked_on = ''
         order by t.queue_name, t.limit_key, t.priority desc
         limit 1)
        union all
        select n.queue_name
        from queues q
        cross join lateral (
            select t.queue_name
            from task_runs t
            where t.status = 'READY' and t.blocked_on = '' and t.queue_name > q.queue_name
            order by t.queue_name, t.limit_key, t.priority desc
            limit 1) n
    )
    select array_agg(f.queue_name) into v_queues
    from (select q.queue_name from queues q limit 1000) f;
    v_cap := v_most / greatest(1, coalesce(cardinality(v_queues), 0));

    return query
    with streams as materialized (
        select q.queue_name, c.limit_key, c.due, c.future, c.oldest,
               coalesce(b.tokens < 1, false) as throttled,
               exists (select from reproq_queue_controls p where p.queue_name = q.queue_name and p.paused) as paused
        from unnest(v_queues) as q (queue_name)
        cross join lateral (
            select r.limit_key, count(*) filter (where r.since <= v_now) as due,
                   count(*) filter (where r.since > v_now) as future, min(r.since) as oldest
            from (select t.limit_key, greatest(t.enqueued_at, t.run_after) as since
                  from task_runs t
                  where t.queue_name = q.queue_name and t.status = 'READY' and t.blocked_on = ''
                  order by t.limit_key, t.priority desc, greatest(t.enqueued_at, t.run_after), t.result_id
                  limit v_cap) r
            group by r.limit_key) c
        left join lateral _reproq_bucket(q.queue_name, c.limit_key, v_now) b on true
    )
    select 'ready', s.queue_name, sum(s.due)::double precision from streams s group by s.queue_name
    union all
    select 'throttled', s.queue_name, sum(s.due)::double precision
    from streams s where s.throttled group by s.queue_name having sum(s.due) > 0
    union all
    select 'scheduled', s.queue_name, sum(s.future)::double precision from streams s group by s.queue_name
    union all
    select 'oldest_ready_seconds', a.queue_name, greatest(0, extract(epoch from v_now - min(a.since)))::double precision
    from (select s.queue_name, s.oldest as since from streams s
          union all
          select e.queue_name, e.since from _reproq_earliest(v_queues) e) a
    group by a.queue_name
    union all
    select 'held_back', 'paused', sum(s.due)::double precision from streams s where s.paused having sum(s.due) > 0
    union all
    select 'held_back', 'throttled', sum(s.due)::double precision
    from streams s where s.throttled and not s.paused having sum(s.due) > 0
    union all
    select 'held_back', 'scheduled', sum(s.future)::double precision from streams s having sum(s.future) > 0;

    return query
    with blocked as materialized (
        select t.queue_name, left(t.blocked_on, 1) as kind
        from task_runs t
        where t.status = 'READY' and t.blocked_on <> ''
        order by hashtextextended(t.blocked_on, 0), t.queue_name
        limit v_most
    )
    select 'blocked', p.queue_name, count(*)::double precision from blocked p group by p.queue_name
    union all
    select 'held_back', case p.kind when 'l' then 'lock_key' else 'concurrency_key' end, count(*)::double precision
    from blocked p group by p.kind;

    return query
    with waiting as materialized (
        select t.queue_name
        from task_runs t
        where '' || t.status = 'WAITING'
        order by hashint8extended(t.result_id, 0)
        limit v_most
    )
    select 'waiting', w.queue_name, count(*)::double precision from waiting w group by w.queue_name
    union all
    select 'held_back', 'predecessor', count(*)::double precision from waiting having count(*) > 0;

    return query
    with running as materialized (
        select t.queue_name, t.leased_until
        from task_runs t
        where t.leased_until is not null
        order by t.leased_until
        limit v_most
    )
    select 'running', r.queue_name, count(*)::double precision from running r group by r.queue_name
    union all
    select 'leases_expired', '', (count(*) filter (where r.leased_until < v_now))::double precision from running r;

    return query
    select 'paused', c.queue_name, 1::double precision from reproq_queue_controls c where c.paused
    union all
    (select 'limit_tokens', r.key,
            reproq_bucket_level(r.tokens_per_second, r.burst_size, r.current_tokens, r.last_refilled_at, v_now)
     from rate_limits r
     where r.tokens_per_second > 0
     order by r.key
     limit 1000)
    union all
    select 'workers', '', count(*)::double precision
    from reproq_workers w where w.last_seen_at > v_now - interval '5 minutes'
    union all
    select 'capacity', '', coalesce(sum(w.concurrency), 0)::double precision
    from reproq_workers w where w.last_seen_at > v_now - interval '5 minutes'
    union all
    select 'beat_lateness_seconds', '',
           coalesce(greatest(0, extract(epoch from v_now - min(p.next_run_at))), 0)::double precision
    from periodic_tasks p where p.enabled and p.next_run_at > '-infinity'
    union all
    select 'oldest_transaction_seconds', '',
           coalesce(greatest(0, extract(epoch from v_now - min(a.xact_start))), 0)::double precision
    from pg_stat_activity a where a.datname = current_database() and a.pid <> pg_backend_pid()
    union all
    select 'notification_queue_usage', '', pg_notification_queue_usage();
end
$$;

revoke execute on function _reproq_count_metrics() from public;
comment on function _reproq_count_metrics() is 'Counts what reproq_metrics answers. @0.1.0';
