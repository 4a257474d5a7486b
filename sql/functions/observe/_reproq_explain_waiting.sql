create or replace function _reproq_explain_waiting(p_task task_runs)
returns table (blocks boolean, reason text, detail text, until timestamptz, remedy text)
language plpgsql stable parallel unsafe
as $$
#variable_conflict use_column
-- What a WAITING task waits for: the step before it, or the members of its chord. For reproq_explain.
begin
    return query
    select true, 'waiting_for_step', 'waits for task ' || p.result_id || ', which is ' || p.status, null::timestamptz,
           'select * from reproq_explain(' || p.result_id || ')'
    from task_runs p where p.result_id = p_task.parent_id
    union all
    select true, 'waiting_for_members', m.good || ' of ' || w.expected_count || ' members of its chord have succeeded'
           || case when m.good < w.expected_count and m.first_open is null
                   then '; no other is left, so reproq_reclaim ends it after a minute' else '' end,
           null::timestamptz, case when m.first_open is not null then 'select * from reproq_explain(' || m.first_open || ')'
                                   when m.good < w.expected_count then 'select reproq_cancel(' || p_task.result_id || ')' end
    from workflow_runs w
    cross join lateral (
        select count(*) filter (where o.status = 'SUCCESSFUL') as good,
               min(o.result_id) filter (where o.finished_at is null) as first_open
        from task_runs o
        where o.workflow_id = w.workflow_id and o.result_id <> p_task.result_id) m
    where w.callback_result_id = p_task.result_id;
    if not found then
        return query select true, 'orphaned', 'what it waited for is gone; reproq_reclaim ends it after a minute',
            null::timestamptz, 'select reproq_cancel(' || p_task.result_id || ')';
    end if;
end
$$;

revoke execute on function _reproq_explain_waiting(task_runs) from public;
comment on function _reproq_explain_waiting(task_runs) is 'What a waiting task waits for; part of reproq_explain. @0.1.0';
