create or replace view reproq_queues with (security_barrier) as
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
from (select r.queue_name from task_runs r where r.status in ('READY', 'RUNNING', 'WAITING') group by r.queue_name
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
    from (
        select r.limit_key,
               count(*) filter (where r.status = 'READY' and r.blocked_on = '' and d.due) as ready,
               count(*) filter (where r.status = 'READY' and r.blocked_on <> '') as blocked,
               count(*) filter (where r.status = 'READY' and not d.due) as scheduled,
               count(*) filter (where r.status = 'WAITING') as waiting,
               count(*) filter (where r.status = 'RUNNING') as running,
               min(greatest(r.enqueued_at, r.run_after)) filter (where r.status = 'READY' and d.due) as since,
               min(greatest(r.enqueued_at, r.run_after)) filter (where r.status = 'READY' and not d.due) as next_due
        from task_runs r
        cross join lateral (select greatest(r.enqueued_at, r.run_after) <= reproq_now() as due) d
        where r.queue_name = q.queue_name and r.status in ('READY', 'RUNNING', 'WAITING')
        group by r.limit_key) s
    left join lateral (
        select reproq_bucket_level(
            r.tokens_per_second, r.burst_size, r.current_tokens, r.last_refilled_at, reproq_now()) as tokens
        from rate_limits r
        where r.key in (s.limit_key, 'queue:' || q.queue_name, 'global') and r.tokens_per_second > 0
        order by case r.key when s.limit_key then 1 when 'global' then 3 else 2 end
        limit 1) l on true) t on true
left join lateral (
    select case when l.tokens < 1
                then reproq_now() + make_interval(secs => least(1e9, (1 - l.tokens) / r.tokens_per_second::double precision)) end as throttled_until
    from rate_limits r
    cross join lateral (
        select reproq_bucket_level(
            r.tokens_per_second, r.burst_size, r.current_tokens, r.last_refilled_at, reproq_now()) as tokens) l
    where r.key in ('queue:' || q.queue_name, 'global') and r.tokens_per_second > 0
    order by case r.key when 'global' then 2 else 1 end
    limit 1) b on true;

revoke all on reproq_queues from public;
comment on view reproq_queues is
    'Queues with unfinished tasks or a pause: tasks by state (ready: due and not blocked; throttled: those of them with an empty token bucket; blocked: a key is busy; scheduled: due later), how long the oldest due task waits, when the next is due, when its own empty token bucket, or the global one, has a token. Counts all unfinished tasks.';
