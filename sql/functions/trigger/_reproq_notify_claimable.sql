create or replace function _reproq_notify_claimable(p_result_ids bigint[]) returns void
language plpgsql volatile parallel unsafe
as $$
-- Notifies the workers of each queue in which one of these tasks is READY and not blocked, due now or later: later ones
-- shorten a worker's timer. For our own functions; triggers do it for foreign writes.
declare
    v_queues text[];
begin
    -- A distinct in this statement would have the planner walk an index in the order of queue_name (sql/README.md, "Plans").
    v_queues := array(
        select t.queue_name from task_runs t
        where t.result_id = any (p_result_ids) and t.status || '' = 'READY' and t.blocked_on || '' = '');
    perform _reproq_notify(q.name) from (select distinct u.name from unnest(v_queues) as u (name)) q;
end
$$;

revoke execute on function _reproq_notify_claimable(bigint[]) from public;
comment on function _reproq_notify_claimable(bigint[]) is
    'Notifies the workers of the queues of tasks that became claimable. @0.1.0';
