create or replace view reproq_schedules with (security_barrier) as
select p.name,
       p.cron_expr,
       p.time_zone,
       p.task_path,
       p.queue_name,
       p.priority,
       p.max_attempts,
       p.concurrency_key,
       p.concurrency_limit,
       p.misfire,
       p.overlap,
       p.enabled,
       p.last_run_at,
       case when p.planned and p.next_run_at < '9999-12-30 00:00+00' then p.next_run_at end as next_run_at,
       p.planned,
       o.result_id as last_result_id,
       t.status as last_status
from periodic_tasks p
left join lateral (
    select r.result_id from periodic_occurrences r
    where r.name = p.name and r.result_id is not null
    order by r.scheduled_at desc limit 1) o on true
left join task_runs t on t.result_id = o.result_id;

revoke all on reproq_schedules from public;
comment on view reproq_schedules is 'Schedules without what their tasks are given; next_run_at is null until a beat has planned it, and when it never runs again.';
