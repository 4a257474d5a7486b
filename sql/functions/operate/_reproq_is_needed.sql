create or replace function _reproq_is_needed(
    p_result_id bigint, p_workflow_id uuid, p_status text, p_finished_until timestamptz, p_expired_until timestamptz
) returns boolean
language plpgsql stable parallel unsafe
as $$
-- Whether something depends on a final task: a step that waits for it, its chord or chain of which another step has
-- not ended, or a failed task of its chord: retrying that one must find the successes it counts on and the callback. A
-- callback may go with those that are pruned before it: that ended or expired at these instants or before (null: none).
begin
    return exists (
            select from task_runs c where c.parent_id = p_result_id and c.finished_at is null)
        or p_workflow_id is not null and exists (
            select from task_runs m
            where m.workflow_id = p_workflow_id and m.status in ('READY', 'RUNNING', 'WAITING'))
        or p_workflow_id is not null and exists (
            select from workflow_runs w
            join task_runs m on m.workflow_id = w.workflow_id
            where w.workflow_id = p_workflow_id and m.status in ('FAILED', 'CANCELLED')
              and m.result_id <> p_result_id
              and (p_status = 'SUCCESSFUL'
                   or w.callback_result_id = p_result_id and (m.finished_at <= p_finished_until) is not true
                      and (m.expires_at <= p_expired_until) is not true));
end
$$;

revoke execute on function _reproq_is_needed(bigint, uuid, text, timestamptz, timestamptz) from public;
comment on function _reproq_is_needed(bigint, uuid, text, timestamptz, timestamptz) is
    'Whether something depends on a final task. @0.1.0';
