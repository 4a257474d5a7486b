create or replace function _reproq_propagate_missed(p_limit integer)
returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe
as $$
#variable_conflict use_column
-- Rows of workflows may arrive one by one, so a step can be inserted while its predecessor ends, and a chord
-- after its members ended; neither saw the other. Looks at 10 x p_limit steps and 2 x p_limit chords, each time from
-- another random one, wrapping around, and moves the steps behind up to p_limit predecessors. Returns the tasks it
-- moved.
-- Locks: _reproq_try_end; rows that another session holds are left to the next call.
declare
    v_from uuid := gen_random_uuid();
    v_parents bigint[];
    v_callbacks bigint[];
    v_moved bigint[];
begin
    v_parents := array(select w.parent_id from _reproq_some_waiting(least(p_limit, 100000) * 10) w where w.parent_id is not null);
    v_parents := array(
        select p.result_id
        from task_runs p
        where p.result_id = any (v_parents)
          and p.status || '' in ('SUCCESSFUL', 'FAILED', 'CANCELLED') and _reproq_try_end(p.result_id)
        limit p_limit);
    v_callbacks := array(
        select t.result_id
        from ((select w.* from workflow_runs w
               where w.status in ('RUNNING', 'WAITING_CALLBACK') and w.workflow_id >= v_from
               order by w.workflow_id limit p_limit)
              union all
              (select w.* from workflow_runs w
               where w.status in ('RUNNING', 'WAITING_CALLBACK') and w.workflow_id < v_from
               order by w.workflow_id limit p_limit)) w
        join task_runs t on t.result_id = any (array[w.callback_result_id])
        left join lateral (
            select m.result_id
            from task_runs m
            where m.workflow_id between w.workflow_id and w.workflow_id
              and m.status in ('READY', 'RUNNING', 'WAITING') and m.result_id <> w.callback_result_id
            order by m.workflow_id, m.status, m.result_id
            limit 1) m on true
        where (t.status || '' in ('SUCCESSFUL', 'FAILED', 'CANCELLED') or t.status || '' = 'WAITING' and m.result_id is null)
          and _reproq_try_end(t.result_id));
    if cardinality(v_parents || v_callbacks) = 0 then
        return;
    end if;
    v_moved := array(
        select c.result_id from task_runs c where c.parent_id = any (v_parents) and c.status || '' = 'WAITING'
        union
        select c.result_id from task_runs c where c.result_id = any (v_callbacks) and c.finished_at is null);
    perform _reproq_propagate(v_parents || v_callbacks);
    return query
    select t.result_id, case t.status when 'READY' then 'ready' else 'failed' end
    from task_runs t
    where t.result_id = any (v_moved) and t.status || '' <> 'WAITING'
    order by t.result_id;
end
$$;

revoke execute on function _reproq_propagate_missed(integer) from public;
comment on function _reproq_propagate_missed(integer) is
    'Moves steps and chords that their predecessors could not see; part of reproq_reclaim. @0.1.0';
