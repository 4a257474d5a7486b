create or replace function reproq_try_workflow(p_workflow_id uuid) returns boolean
language plpgsql volatile parallel unsafe
as $$
-- True when a task of this workflow may be ended now without waiting: its workflow_runs row is locked for
-- us, or there is none (a chain, or no workflow). For callers that hold task rows already (lock order).
begin
    perform from workflow_runs w where w.workflow_id = p_workflow_id for no key update skip locked;
    return found or not exists (select from workflow_runs w where w.workflow_id = p_workflow_id);
end
$$;

revoke execute on function reproq_try_workflow(uuid) from public;
comment on function reproq_try_workflow(uuid) is 'Locks a workflow row if nobody holds it; false = somebody does. @v1';
