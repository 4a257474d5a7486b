create or replace function reproq_is_needed(p_result_id bigint, p_workflow_id uuid) returns boolean
language plpgsql stable parallel unsafe
as $$
-- Whether something live depends on a final task: a step that waits for it, or its chord that has not ended, or a
-- chain of which another step has not ended.
begin
    return exists (
            select from task_runs c where c.parent_id = p_result_id and c.finished_at is null)
        or p_workflow_id is not null and exists (
            select from task_runs m
            where m.workflow_id = p_workflow_id and m.status in ('READY', 'RUNNING', 'WAITING'));
end
$$;

revoke execute on function reproq_is_needed(bigint, uuid) from public;
comment on function reproq_is_needed(bigint, uuid) is 'Whether something live depends on a final task. @v1';
