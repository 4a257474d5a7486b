create or replace function _reproq_counts_are_recent(p_workflow workflow_runs, p_now timestamptz) returns boolean
language plpgsql stable parallel safe
as $$
-- Whether the counts of a chord may stand: it has more than 100 members, some have not ended, its counts are not a second
-- old, and none has failed since. So a chord of ten thousand costs no ten thousand counts of it.
begin
    return p_workflow.expected_count > 100 and p_workflow.status in ('RUNNING', 'FAILED')
        and p_workflow.updated_at between p_now - interval '1 second' and p_now
        and exists (
            select from task_runs t
            where t.workflow_id = p_workflow.workflow_id and t.status in ('READY', 'RUNNING', 'WAITING')
              and t.result_id is distinct from p_workflow.callback_result_id)
        and (p_workflow.status = 'FAILED' or not exists (
            select from task_runs t
            where t.workflow_id = p_workflow.workflow_id and t.status in ('FAILED', 'CANCELLED')));
end
$$;

revoke execute on function _reproq_counts_are_recent(workflow_runs, timestamptz) from public;
comment on function _reproq_counts_are_recent(workflow_runs, timestamptz) is
    'Whether the counts of a large chord are recent enough to stand. @0.1.0';
