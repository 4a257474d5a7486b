create or replace function _reproq_waits_for(p_task task_runs) returns bigint
language plpgsql stable parallel unsafe
as $$
-- The task that must succeed before this step or callback may run: its predecessor; of its chord the first member
-- that failed, else the first that has not ended. 0: it ended while it waited (never run, and counting predecessors;
-- or its error says so), and what it waited for was deleted. Null: it may run.
declare
    v_known boolean;
    v_before bigint;
begin
    select count(*) > 0, min(b.result_id) into v_known, v_before
    from (
        select case when p.status <> 'SUCCESSFUL' then p.result_id end as result_id
        from task_runs p where p.result_id = p_task.parent_id
        union all
        select case when m.good < w.expected_count then coalesce(m.first_bad, m.first_open, 0) end
        from workflow_runs w
        cross join lateral (
            select count(*) filter (where o.status = 'SUCCESSFUL') as good,
                   min(o.result_id) filter (where o.status in ('FAILED', 'CANCELLED')) as first_bad,
                   min(o.result_id) filter (where o.finished_at is null) as first_open
            from task_runs o
            where o.workflow_id = w.workflow_id and o.result_id <> p_task.result_id) m
        where w.callback_result_id = p_task.result_id and w.workflow_id = p_task.workflow_id) b;
    if not v_known and (
        p_task.wait_count > 0 and p_task.last_attempted_at is null
        or p_task.errors_json #>> '{-1,kind}' in ('parent_failed', 'workflow_failed'))
    then
        return 0;
    end if;
    return v_before;
end
$$;

revoke execute on function _reproq_waits_for(task_runs) from public;
comment on function _reproq_waits_for(task_runs) is
    'The task that must succeed before this one may run; 0 when it was deleted, null when there is none. @0.1.0';
