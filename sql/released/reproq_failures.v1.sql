create or replace view reproq_failures with (security_barrier) as
select t.queue_name,
       t.task_path,
       t.errors_json #>> '{-1,kind}' as kind,
       t.errors_json #>> '{-1,exception_class}' as exception_class,
       left(t.errors_json #>> '{-1,message}', 200) as message,
       count(*) as tasks,
       min(t.failed_at) as first_failed_at,
       max(t.failed_at) as last_failed_at,
       (array_agg(t.result_id order by t.failed_at desc))[1] as last_result_id
from task_runs t
where t.status = 'FAILED'
group by 1, 2, 3, 4, 5;

revoke all on reproq_failures from public;
comment on view reproq_failures is
    'FAILED tasks grouped by queue, path, kind, class and the first 200 characters of the message of their last error. Reads all of them.';
