create or replace function _reproq_delete_final(p_result_ids bigint[], p_dry_run boolean) returns bigint
language plpgsql volatile parallel unsafe
as $$
-- Deletes those of the tasks that are final and that no other session holds; how many. With p_dry_run it only counts.
-- Locked first and checked again after: a task that an operator just retried stays. So does one when another session
-- holds its chord or a step behind it (the foreign key writes that row). Nothing is waited for. Workflow rows without
-- tasks go with their last one. Locks: workflow rows, the tasks, the steps behind them, all skip locked.
declare
    v_workflows uuid[];
    v_known uuid[];
    v_ids bigint[];
    v_behind bigint[];
begin
    if p_dry_run then
        return cardinality(p_result_ids);
    end if;
    v_workflows := array(select t.workflow_id from task_runs t where t.result_id = any (p_result_ids));
    v_known := array(select w.workflow_id from workflow_runs w where w.workflow_id = any (v_workflows));
    v_workflows := array(
        select w.workflow_id from workflow_runs w
        where w.workflow_id = any (v_workflows)
        order by w.workflow_id
        for no key update skip locked);
    with locked as materialized (
        select t.result_id, t.finished_at, t.workflow_id from task_runs t
        where t.result_id = any (p_result_ids)
        order by t.result_id
        for update skip locked)
    select coalesce(array_agg(l.result_id), '{}') into v_ids
    from locked l
    where l.finished_at is not null
      and case when l.workflow_id in (select unnest(v_workflows)) then true
               when l.workflow_id in (select unnest(v_known)) then false else true end;
    v_behind := array(select t.result_id from task_runs t where t.parent_id = any (v_ids) for no key update skip locked);
    v_ids := array(
        select u.id from unnest(v_ids) as u (id)
        where u.id not in (
            select t.parent_id from task_runs t
            where t.parent_id = any (v_ids)
              and case when t.result_id in (select unnest(v_behind)) then false else true end));
    -- A callback stays as long as a failed task of its chord does: its retry needs it.
    if v_workflows <> '{}' then
        v_ids := array(
            select u.id from unnest(v_ids) as u (id)
            where u.id not in (
                select w.callback_result_id
                from workflow_runs w
                join task_runs m on m.workflow_id = w.workflow_id and m.status in ('FAILED', 'CANCELLED')
                where w.workflow_id = any (v_workflows) and w.callback_result_id is not null
                  and m.result_id <> w.callback_result_id
                  and case when m.result_id in (select unnest(v_ids)) then false else true end));
    end if;
    delete from task_runs t where t.result_id = any (v_ids);
    delete from workflow_runs w
    where w.workflow_id = any (v_workflows)
      and not exists (select from task_runs t where t.workflow_id = w.workflow_id);
    return cardinality(v_ids);
end
$$;

revoke execute on function _reproq_delete_final(bigint[], boolean) from public;
comment on function _reproq_delete_final(bigint[], boolean) is 'Deletes final tasks that no other session holds. @0.1.0';
