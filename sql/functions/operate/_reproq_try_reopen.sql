create or replace function _reproq_try_reopen(p_result_id bigint) returns boolean
language plpgsql volatile parallel unsafe
as $$
-- True when this task can be retried now: the task, its failed dependents and the row of its chord are locked for us.
-- False: another session holds one of them. Never waits. For callers that hold rows already.
-- Locks: the workflow row, then tasks by id, skip locked.
declare
    v_workflow_id uuid;
    v_callback_id bigint;
    v_ids bigint[];
    v_locked integer;
begin
    select t.workflow_id into v_workflow_id from task_runs t where t.result_id = p_result_id;
    select w.callback_result_id into v_callback_id from workflow_runs w where w.workflow_id = v_workflow_id;
    if found then
        perform from workflow_runs w where w.workflow_id = v_workflow_id for no key update skip locked;
        if not found then
            return false;
        end if;
    end if;
    v_ids := p_result_id || _reproq_failed_dependents(p_result_id, v_callback_id);
    perform from task_runs t
    where t.result_id = any (v_ids)
    order by t.result_id
    for no key update skip locked;
    get diagnostics v_locked = row_count;
    return v_locked = cardinality(v_ids);
end
$$;

revoke execute on function _reproq_try_reopen(bigint) from public;
comment on function _reproq_try_reopen(bigint) is
    'Locks a failed task and its failed dependents without waiting; false = another session holds one of them. @0.1.0';
