create or replace function _reproq_relabel(p_task_path text, p_limit_key text) returns void
language plpgsql volatile parallel unsafe
as $$
-- Gives the waiting tasks of a path their limit_key. Reads all waiting tasks: for operators' calls only.
-- Locks: the tasks it changes, skip locked.
begin
    with locked as materialized (
        select t.result_id
        from task_runs t
        where t.task_path = p_task_path and t.status in ('READY', 'WAITING') and t.limit_key <> p_limit_key
        order by t.result_id
        for no key update skip locked
    )
    update task_runs t set limit_key = p_limit_key, revision = t.revision + 1
    from locked l
    where t.result_id = l.result_id;
end
$$;

revoke execute on function _reproq_relabel(text, text) from public;
comment on function _reproq_relabel(text, text) is 'Moves the waiting tasks of a path to the stream of their limit. @0.1.0';
