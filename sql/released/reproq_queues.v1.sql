create or replace view reproq_queues with (security_barrier) as
select q.queue_name,
       coalesce(c.paused, false) as paused,
       c.reason as paused_reason,
       coalesce(t.ready, 0) as ready,
       coalesce(t.parked, 0) as parked,
       coalesce(t.scheduled, 0) as scheduled,
       coalesce(t.waiting, 0) as waiting,
       coalesce(t.running, 0) as running,
       t.oldest_ready,
       t.next_due
from (select r.queue_name from task_runs r where r.status in ('READY', 'RUNNING', 'WAITING') group by r.queue_name
      union
      select p.queue_name from reproq_queue_controls p) q
left join reproq_queue_controls c on c.queue_name = q.queue_name
left join lateral (
    select count(*) filter (where r.status = 'READY' and r.parked_on = '' and d.due) as ready,
           count(*) filter (where r.status = 'READY' and r.parked_on <> '') as parked,
           count(*) filter (where r.status = 'READY' and not d.due) as scheduled,
           count(*) filter (where r.status = 'WAITING') as waiting,
           count(*) filter (where r.status = 'RUNNING') as running,
           reproq_now() - min(greatest(r.enqueued_at, r.run_after)) filter (where r.status = 'READY' and d.due) as oldest_ready,
           min(greatest(r.enqueued_at, r.run_after)) filter (where r.status = 'READY' and not d.due) as next_due
    from task_runs r
    cross join lateral (select greatest(r.enqueued_at, r.run_after) <= reproq_now() as due) d
    where r.queue_name = q.queue_name and r.status in ('READY', 'RUNNING', 'WAITING')) t on true;

revoke all on reproq_queues from public;
comment on view reproq_queues is 'Queues: paused or not, tasks by state, age of the oldest due one. Counts all unfinished tasks.';
