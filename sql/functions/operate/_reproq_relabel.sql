create or replace function _reproq_relabel(p_task_path text, p_limit_key text) returns void
language plpgsql volatile parallel unsafe
as $$
-- Gives waiting tasks of a path their limit_key: those among the first 250 of each of 100 queues, of the blocked ones
-- and of those that wait for others. The label is a hint: a claim corrects the rest as it meets them, and a label
-- whose bucket is gone only costs a stream. Locks: the tasks it changes, skip locked.
declare
    v_from text := case p_limit_key when '' then 'task:' || p_task_path else '' end;
    v_ids bigint[];
begin
    with recursive queues as (
        (select t.queue_name
         from task_runs t
         where t.status = 'READY' and t.blocked_on = ''
         order by t.queue_name, t.limit_key, t.priority desc
         limit 1)
        union all
        select n.queue_name
        from queues q
        cross join lateral (
            select t.queue_name
            from task_runs t
            where t.status = 'READY' and t.blocked_on = '' and t.queue_name > q.queue_name
            order by t.queue_name, t.limit_key, t.priority desc
            limit 1) n
    ), found as (
        select r.result_id, r.task_path
        from (select q.queue_name from queues q limit 100) q
        cross join lateral (
            select t.result_id, t.task_path
            from task_runs t
            where t.queue_name = q.queue_name and t.limit_key between v_from and v_from
              and t.status = 'READY' and t.blocked_on = ''
            order by t.limit_key, t.priority desc, greatest(t.enqueued_at, t.run_after), t.result_id
            limit 250) r
        union all
        (select t.result_id, t.task_path
         from task_runs t
         where t.status = 'READY' and t.blocked_on <> ''
         order by hashtextextended(t.blocked_on, 0), t.queue_name
         limit 250)
    )
    select array(select f.result_id from found f where f.task_path = p_task_path)
           || array(select w.result_id from _reproq_some_waiting(250) w)
    into v_ids;
    with locked as materialized (
        select t.result_id, t.task_path, t.limit_key, t.status
        from task_runs t
        where t.result_id = any (v_ids)
        order by t.result_id
        for no key update skip locked)
    select coalesce(array_agg(l.result_id), '{}') into v_ids
    from locked l
    where l.task_path = p_task_path and l.limit_key <> p_limit_key and l.status in ('READY', 'WAITING');
    update task_runs t set limit_key = p_limit_key, revision = t.revision + 1 where t.result_id = any (v_ids);
end
$$;

revoke execute on function _reproq_relabel(text, text) from public;
comment on function _reproq_relabel(text, text) is
    'Moves the first waiting tasks of a path to the stream of their limit. @0.1.0';
