create or replace function reproq_delete_final(p_result_ids bigint[], p_dry_run boolean) returns bigint
language plpgsql volatile parallel unsafe
as $$
-- Deletes those of the tasks that are final and that nobody holds; how many. With p_dry_run it only counts.
-- Locked first and looked at again after: a task that an operator just retried stays. Workflow rows without
-- tasks go with their last one. Locks: workflow rows (waiting), then the tasks, skip locked.
declare
    v_ids bigint[];
    v_workflows uuid[];
begin
    if p_dry_run then
        return cardinality(p_result_ids);
    end if;
    perform reproq_lock_workflows(p_result_ids);
    with locked as materialized (
        select t.result_id, t.finished_at, t.workflow_id from task_runs t
        where t.result_id = any (p_result_ids)
        order by t.result_id
        for update skip locked)
    select coalesce(array_agg(l.result_id), '{}'),
           array_agg(distinct l.workflow_id) filter (where l.workflow_id is not null)
    into v_ids, v_workflows
    from locked l where l.finished_at is not null;
    delete from task_runs t where t.result_id = any (v_ids);
    delete from workflow_runs w
    where w.workflow_id = any (v_workflows)
      and not exists (select from task_runs t where t.workflow_id = w.workflow_id);
    return cardinality(v_ids);
end
$$;

revoke execute on function reproq_delete_final(bigint[], boolean) from public;
comment on function reproq_delete_final(bigint[], boolean) is 'Deletes final tasks that nobody holds. @v1';
