create or replace function _reproq_propagate_to_steps(p_result_ids bigint[]) returns bigint[]
language plpgsql volatile parallel unsafe
as $$
-- Steps of chains with a predecessor among these final tasks. After a success they become READY, with a
-- hash of their own (they can never collide with an active duplicate) and run_after now (waiting for a
-- predecessor is not age). After anything else they and all behind them end as parent_failed.
-- Returns the ones that ended. Locks: dependents by id.
declare
    v_now timestamptz := reproq_now();
    v_fallen bigint[];
    v_queues text[];
begin
    with next_steps as materialized (
        select c.result_id
        from task_runs p
        join task_runs c on c.parent_id = any (array[p.result_id]) and c.status || '' = 'WAITING'
        where p.result_id = any (p_result_ids) and c.parent_id = any (p_result_ids) and p.status || '' = 'SUCCESSFUL'
    ), locked as materialized (
        select t.result_id, t.status
        from task_runs t
        where t.result_id = any (array(select n.result_id from next_steps n))
        order by t.result_id
        for no key update
    ), started as (
        update task_runs t
        set status = 'READY', wait_count = 0, updated_at = v_now, revision = t.revision + 1,
            run_after = greatest(t.run_after, v_now), spec_hash = replace(gen_random_uuid()::text, '-', '')
        where t.result_id = any (array(select l.result_id from locked l where l.status = 'WAITING'))
        returning t.queue_name
    )
    select array_agg(distinct s.queue_name) into v_queues from started s;
    perform _reproq_notify(q.name) from unnest(v_queues) as q (name);

    with recursive falling as (
        select c.result_id
        from task_runs p
        join task_runs c on c.parent_id = any (array[p.result_id]) and c.status || '' = 'WAITING'
        where p.result_id = any (p_result_ids) and c.parent_id = any (p_result_ids)
          and p.status || '' in ('FAILED', 'CANCELLED')
        union
        select n.result_id
        from falling f
        cross join lateral (
            select c.result_id from task_runs c where c.parent_id = f.result_id and c.status || '' = 'WAITING' offset 0) n
    ), locked as materialized (
        select t.result_id, t.status
        from task_runs t
        where t.result_id = any (array(select f.result_id from falling f))
        order by t.result_id
        for no key update
    )
    select coalesce(array_agg(l.result_id), '{}') into v_fallen from locked l where l.status = 'WAITING';
    if cardinality(v_fallen) > 0 then
        perform _reproq_set_final(v_fallen, null, array_fill(
            jsonb_build_object('kind', 'parent_failed', 'message', 'an earlier step of its chain did not succeed'),
            array[cardinality(v_fallen)]), null, null);
    end if;
    return v_fallen;
end
$$;

revoke execute on function _reproq_propagate_to_steps(bigint[]) from public;
comment on function _reproq_propagate_to_steps(bigint[]) is
    'Starts or ends the steps that waited for tasks that are now final. @0.1.0';
