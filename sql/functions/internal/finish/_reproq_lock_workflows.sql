create or replace function _reproq_lock_workflows(p_result_ids bigint[]) returns void
language plpgsql volatile parallel unsafe
as $$
-- Locks the workflow rows of these tasks, by id, waiting. Before the task rows: a sibling that ends at the
-- same time waits here, and then counts in a new statement what we have committed.
declare
    v_workflow_ids uuid[];
begin
    select array_agg(t.workflow_id) filter (where t.workflow_id is not null) into v_workflow_ids
    from task_runs t
    where t.result_id = any (p_result_ids);
    if v_workflow_ids is not null then
        perform from workflow_runs w
        where w.workflow_id = any (v_workflow_ids)
        order by w.workflow_id
        for no key update;
    end if;
end
$$;

revoke execute on function _reproq_lock_workflows(bigint[]) from public;
comment on function _reproq_lock_workflows(bigint[]) is 'Locks the workflow rows of tasks, before their own rows. @0.1.0';
