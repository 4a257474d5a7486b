create or replace function _reproq_reopen(p_result_id bigint) returns void
language plpgsql volatile parallel unsafe
as $$
-- What follows when a failed task is retried: steps that ended as parent_failed behind it wait again, and its
-- chord runs again, its callback WAITING unless it ended by itself or another member is still failed.
-- Locks: dependents by id; the workflow row is the caller's.
declare
    v_now timestamptz := reproq_now();
    v_workflow_id uuid;
    v_callback bigint;
    v_behind bigint[];
    v_again bigint[];
begin
    select t.workflow_id into v_workflow_id from task_runs t where t.result_id = p_result_id;
    update workflow_runs w
    set status = case when w.callback_result_id = p_result_id then 'WAITING_CALLBACK'
                      when m.bad > 0 then 'FAILED' else 'RUNNING' end,
        success_count = m.good, failure_count = m.bad, updated_at = v_now, revision = w.revision + 1
    from (
        select count(*) filter (where o.status = 'SUCCESSFUL') as good,
               count(*) filter (where o.status in ('FAILED', 'CANCELLED')) as bad
        from task_runs o
        where o.workflow_id = v_workflow_id and o.result_id is distinct from (
            select x.callback_result_id from workflow_runs x where x.workflow_id = v_workflow_id)) m
    where w.workflow_id = v_workflow_id
    returning case when w.status = 'RUNNING' then w.callback_result_id end into v_callback;

    v_behind := _reproq_failed_dependents(p_result_id, v_callback);
    with locked as materialized (
        select t.result_id, t.status from task_runs t
        where t.result_id = any (v_behind)
        order by t.result_id
        for no key update
    )
    select array_agg(l.result_id) into v_again from locked l where l.status = 'FAILED';
    update task_runs t
    set status = 'WAITING', wait_count = greatest(t.wait_count, 1), updated_at = v_now, revision = t.revision + 1,
        finished_at = null, failed_at = null, last_error = null
    where t.result_id = any (v_again);
end
$$;

revoke execute on function _reproq_reopen(bigint) from public;
comment on function _reproq_reopen(bigint) is 'Lets the dependents of a retried task wait for it again. @0.1.0';
