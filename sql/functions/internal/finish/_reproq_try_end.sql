create or replace function _reproq_try_end(p_result_id bigint) returns boolean
language plpgsql volatile parallel unsafe
as $$
-- True when this task can end now: the task, all that waits for it (the steps behind it, the callback of its chord, and
-- so on) and their workflow rows are locked for us. False: another session holds one of them. Never waits.
-- For callers that hold rows already: waiting could be a deadlock, and one row that is held for long would stop a whole
-- claim or reclaim. Locks: workflow rows, then tasks, both by id, skip locked.
declare
    v_ids bigint[];
    v_workflow_ids uuid[];
    v_locked integer;
begin
    with recursive tree as (
        select t.result_id, t.workflow_id from task_runs t where t.result_id = p_result_id
        union
        select n.result_id, n.workflow_id
        from tree b
        cross join lateral (
            select c.result_id, c.workflow_id
            from task_runs c
            where c.parent_id = any (array[b.result_id]) and c.status || '' = 'WAITING'
            union all
            select c.result_id, c.workflow_id
            from workflow_runs w
            join task_runs c on c.result_id = any (array[w.callback_result_id])
            where w.workflow_id = b.workflow_id and c.status || '' = 'WAITING') n
    )
    select coalesce(array_agg(b.result_id), '{}'), coalesce(array_agg(distinct b.workflow_id), '{}')
    into v_ids, v_workflow_ids
    from tree b;

    perform from workflow_runs w
    where w.workflow_id = any (v_workflow_ids)
    order by w.workflow_id
    for no key update skip locked;
    get diagnostics v_locked = row_count;
    if v_locked < (select count(*) from workflow_runs w where w.workflow_id = any (v_workflow_ids)) then
        return false;
    end if;
    perform from task_runs t
    where t.result_id = any (v_ids)
    order by t.result_id
    for no key update skip locked;
    get diagnostics v_locked = row_count;
    return v_locked = cardinality(v_ids);
end
$$;

revoke execute on function _reproq_try_end(bigint) from public;
comment on function _reproq_try_end(bigint) is
    'Locks a task and all that waits for it, without waiting; false = another session holds one of them. @0.1.0';
