create or replace view reproq_queues with (security_barrier) as
with clock as materialized (
    select reproq_now() as now
), unfinished as (
    -- One partial index for each kind: finished tasks are not read.
    select r.queue_name, r.limit_key, 'ready' as kind, greatest(r.enqueued_at, r.run_after) as since
    from task_runs r where r.status = 'READY' and r.blocked_on = ''
    union all
    select r.queue_name, r.limit_key, 'blocked', greatest(r.enqueued_at, r.run_after)
    from task_runs r where r.status = 'READY' and r.blocked_on <> ''
    union all
    select r.queue_name, r.limit_key, 'running', null
    from task_runs r where r.status = 'RUNNING' and r.leased_until is not null
    union all
    select r.queue_name, r.limit_key, 'waiting', null from task_runs r where '' || r.status = 'WAITING'
), streams as materialized (
    select u.queue_name, u.limit_key,
           count(*) filter (where u.kind = 'ready' and u.since <= c.now) as ready,
           count(*) filter (where u.kind = 'blocked') as blocked,
           count(*) filter (where u.since > c.now) as scheduled,
           count(*) filter (where u.kind = 'waiting') as waiting,
           count(*) filter (where u.kind = 'running') as running,
           min(u.since) filter (where u.since <= c.now) as since,
           min(u.since) filter (where u.since > c.now) as next_due
    from unfinished u
    cross join clock c
    group by u.queue_name, u.limit_key
)
select q.queue_name,
       coalesce(c.paused, false) as paused,
       c.reason as paused_reason,
       coalesce(t.ready, 0) as ready,
       coalesce(t.throttled, 0) as throttled,
       coalesce(t.blocked, 0) as blocked,
       coalesce(t.scheduled, 0) as scheduled,
       coalesce(t.waiting, 0) as waiting,
       coalesce(t.running, 0) as running,
       t.oldest_ready,
       t.next_due,
       b.throttled_until
from (select s.queue_name from streams s
      union
      select p.queue_name from reproq_queue_controls p) q
left join reproq_queue_controls c on c.queue_name = q.queue_name
left join lateral (
    select sum(s.ready)::bigint as ready,
           sum(s.ready) filter (where l.tokens < 1)::bigint as throttled,
           sum(s.blocked)::bigint as blocked,
           sum(s.scheduled)::bigint as scheduled,
           sum(s.waiting)::bigint as waiting,
           sum(s.running)::bigint as running,
           reproq_now() - min(s.since) as oldest_ready,
           min(s.next_due) as next_due
    from streams s
    left join lateral (
        select case when r.throttled_until > reproq_now() then 0
                    when r.tokens_per_second > 0 then reproq_bucket_level(
            r.tokens_per_second, r.burst_size, r.current_tokens, r.last_refilled_at, reproq_now()) end as tokens
        from rate_limits r
        where r.key in (s.limit_key, 'queue:' || q.queue_name, 'global')
          and (r.burst_size > 0 or r.throttled_until > reproq_now())
        order by case r.key when s.limit_key then 1 when 'global' then 3 else 2 end
        limit 1) l on true
    where s.queue_name = q.queue_name) t on true
left join lateral (
    select case when l.tokens < 1 and r.tokens_per_second > 0
                then reproq_now() + make_interval(secs => least(1e9, (1 - l.tokens) / r.tokens_per_second::double precision)) end as throttled_until
    from rate_limits r
    cross join lateral (
        select reproq_bucket_level(
            r.tokens_per_second, r.burst_size, r.current_tokens, r.last_refilled_at, reproq_now()) as tokens) l
    where r.key in ('queue:' || q.queue_name, 'global')
    order by case r.key when 'global' then 2 else 1 end
    limit 1) b on true;

revoke all on reproq_queues from public;
comment on view reproq_queues is
    'Queues with unfinished tasks or a pause: tasks by state (ready: due and not blocked; throttled: those of them with an empty token bucket; blocked: a key is busy; scheduled: due later), how long the oldest due task waits, when the next is due, when its own empty token bucket, or the global one, has a token. Counts all unfinished tasks.';
