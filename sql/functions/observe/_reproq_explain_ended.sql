create or replace function _reproq_explain_ended(p_task task_runs)
returns table (blocks boolean, reason text, detail text, until timestamptz, remedy text)
language plpgsql stable parallel unsafe
as $$
#variable_conflict use_column
-- How a final task ended, and what runs it again.
declare
    v_cause task_runs%rowtype := p_task;
    v_before bigint;
    v_seen bigint[] := '{}';
begin
    while v_cause.status in ('FAILED', 'CANCELLED') and v_cause.result_id <> all (v_seen) loop
        v_before := _reproq_waits_for(v_cause);
        exit when v_before is null or v_before = 0;
        v_seen := v_seen || v_cause.result_id;
        select t.* into v_cause from task_runs t where t.result_id = v_before;
    end loop;
    return query select true, 'ended',
        p_task.status || coalesce(': ' || p_task.last_error, '')
        || case when v_cause.result_id = p_task.result_id then ''
                else '; waits for task ' || v_cause.result_id || ', which is ' || v_cause.status
                     || coalesce(': ' || v_cause.last_error, '') end
        || case when v_before = 0 then '; what it waited for was deleted, so nothing can retry it' else '' end,
        null::timestamptz,
        case when p_task.status = 'SUCCESSFUL' then 'select * from reproq_replay(' || p_task.result_id || ')'
             when v_before = 0 then null
             when v_cause.status in ('FAILED', 'CANCELLED') then 'select reproq_retry(' || v_cause.result_id || ')'
             else 'select * from reproq_explain(' || v_cause.result_id || ')' end;
end
$$;

revoke execute on function _reproq_explain_ended(task_runs) from public;
comment on function _reproq_explain_ended(task_runs) is 'How a task ended and what runs it again; part of reproq_explain. @0.1.0';
