create or replace view reproq_blocked with (security_barrier) as
select p.queue_name,
       case when starts_with(p.blocked_on, 'l:') then 'lock_key' else 'concurrency_key' end as waits_for,
       substr(p.blocked_on, 3) as key,
       p.tasks,
       p.oldest,
       array(select r.result_id from task_runs r
             where r.leased_until is not null and case when starts_with(p.blocked_on, 'l:')
                 then r.lock_key = substr(p.blocked_on, 3) else r.concurrency_key = substr(p.blocked_on, 3) end
             order by r.result_id limit 10) as held_by
from (select t.queue_name, t.blocked_on, count(*) as tasks,
             reproq_now() - min(greatest(t.enqueued_at, t.run_after)) as oldest
      from task_runs t
      where t.status = 'READY' and t.blocked_on <> ''
      group by t.queue_name, t.blocked_on) p;

revoke all on reproq_blocked from public;
comment on view reproq_blocked is 'Tasks blocked behind a busy key, by queue and key, with up to ten tasks that hold it.';
