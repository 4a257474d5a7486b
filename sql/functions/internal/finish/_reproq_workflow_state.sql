create or replace function _reproq_workflow_state(
    p_workflow workflow_runs, p_now timestamptz, out status text, out success_count integer, out failure_count integer
)
language plpgsql stable parallel safe
as $$
#variable_conflict use_column
-- What a chord is by the rows of its members and its callback: counts, and RUNNING until all members succeeded, then
-- WAITING_CALLBACK, then as its callback ended; FAILED when a member did not succeed. Members deleted by hand: FAILED, too,
-- a minute after the last count changed and the callback was written, since rows of a workflow may arrive one by one, from
-- a host with a wrong clock.
declare
    v_open integer;
    v_callback text;
    v_callback_since timestamptz;
begin
    select count(*) filter (where t.status = 'SUCCESSFUL'),
           count(*) filter (where t.status in ('FAILED', 'CANCELLED')),
           count(*) filter (where t.status in ('READY', 'RUNNING', 'WAITING'))
    into success_count, failure_count, v_open
    from task_runs t
    where t.workflow_id = p_workflow.workflow_id and t.result_id is distinct from p_workflow.callback_result_id;
    select t.status, t.updated_at into v_callback, v_callback_since
    from task_runs t
    where t.result_id = p_workflow.callback_result_id;
    status := case
        when v_callback = 'SUCCESSFUL' then 'SUCCESSFUL'
        when failure_count > 0 or v_callback in ('FAILED', 'CANCELLED') then 'FAILED'
        when success_count < p_workflow.expected_count and v_open = 0 and v_callback = 'WAITING'
            and success_count = p_workflow.success_count
            and greatest(p_workflow.updated_at, v_callback_since) < p_now - interval '1 minute' then 'FAILED'
        when success_count < p_workflow.expected_count then 'RUNNING'
        when v_callback is null then 'SUCCESSFUL'
        else 'WAITING_CALLBACK' end;
end
$$;

revoke execute on function _reproq_workflow_state(workflow_runs, timestamptz) from public;
comment on function _reproq_workflow_state(workflow_runs, timestamptz) is
    'Status and counts of a chord, from the rows of its tasks. @0.1.0';
