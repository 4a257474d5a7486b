create or replace function reproq_waits_for_others(p_task task_runs) returns boolean
language plpgsql stable parallel unsafe
as $$
-- True for a step or callback that others must succeed before: its predecessor did not, or a member of its
-- chord did not. Such a task is not run on its own.
begin
    return exists (
            select from task_runs p where p.result_id = p_task.parent_id and p.status <> 'SUCCESSFUL')
        or exists (
            select from workflow_runs w
            where w.callback_result_id = p_task.result_id and w.workflow_id = p_task.workflow_id
              and (select count(*) from task_runs m
                   where m.workflow_id = w.workflow_id and m.status = 'SUCCESSFUL'
                     and m.result_id <> p_task.result_id) < w.expected_count);
end
$$;

revoke execute on function reproq_waits_for_others(task_runs) from public;
comment on function reproq_waits_for_others(task_runs) is
    'Whether a task may start only after others that have not succeeded. @v1';
