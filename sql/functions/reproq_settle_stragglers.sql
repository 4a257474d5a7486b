create or replace function reproq_settle_stragglers(p_limit integer)
returns table (result_id bigint, answer text)
language plpgsql volatile
as $$
#variable_conflict use_column
-- Rows of workflows may arrive one by one, so a step can be inserted while its predecessor ends, and a chord
-- after its members ended; neither saw the other. Also predecessors that were deleted. Looks at up to
-- p_limit steps and p_limit chords, from a random one on, so that repeated calls see all.
-- Returns the tasks it moved. Locks: workflow rows that nobody holds, tasks by id (skip locked).
declare
    v_now timestamptz := reproq_now();
    v_parents bigint[];
    v_orphans bigint[];
    v_waiting bigint[];
    v_start bigint := floor(random() * coalesce((select max(t.parent_id) from task_runs t where t.status = 'WAITING'), 0));
    v_from uuid := gen_random_uuid();
begin
    -- Predecessors that are final while a step still waits for them; chords that wait for nothing any more.
    v_parents := array(
        select distinct p.result_id
        from ((select t.parent_id from task_runs t where t.status = 'WAITING' and t.parent_id > v_start
               order by t.parent_id limit p_limit)
              union all
              (select t.parent_id from task_runs t where t.status = 'WAITING' and t.parent_id <= v_start
               order by t.parent_id limit p_limit)) c
        join task_runs p on p.result_id = c.parent_id
        where p.status in ('SUCCESSFUL', 'FAILED', 'CANCELLED') and reproq_try_workflow(p.workflow_id))
        || array(
        select t.result_id
        from ((select w.* from workflow_runs w
               where w.status in ('RUNNING', 'WAITING_CALLBACK') and w.workflow_id >= v_from
               order by w.workflow_id limit p_limit)
              union all
              (select w.* from workflow_runs w
               where w.status in ('RUNNING', 'WAITING_CALLBACK') and w.workflow_id < v_from
               order by w.workflow_id limit p_limit)) w
        join task_runs t on t.result_id = w.callback_result_id
        where (t.status in ('SUCCESSFUL', 'FAILED', 'CANCELLED')
               or t.status = 'WAITING' and not exists (
                   select from task_runs m
                   where m.workflow_id = w.workflow_id and m.status in ('READY', 'RUNNING', 'WAITING')
                     and m.result_id <> w.callback_result_id))
          and reproq_try_workflow(w.workflow_id));
    -- Steps whose predecessor was deleted, and callbacks without their workflow row: after a minute, for
    -- the rest of their workflow may just be on its way.
    v_orphans := array(
        select t.result_id
        from task_runs t
        where t.status = 'WAITING' and t.parent_id is null and t.updated_at < v_now - interval '1 minute'
          and not exists (select from workflow_runs w where w.callback_result_id = t.result_id
                          or w.workflow_id = t.workflow_id)
        order by t.result_id
        limit p_limit
        for no key update of t skip locked);

    v_waiting := array(
        select c.result_id from task_runs c
        where c.status = 'WAITING' and (c.parent_id = any (v_parents) or c.result_id = any (v_parents)));
    if cardinality(v_orphans) > 0 then
        perform reproq_finish(v_orphans, null, array_fill(jsonb_build_object(
            'kind', 'parent_failed', 'message', 'what it waited for was deleted'), array[cardinality(v_orphans)]));
    end if;
    if cardinality(v_parents) > 0 then
        perform reproq_settle(v_parents);
    end if;
    return query
    select t.result_id, case t.status when 'READY' then 'ready' else 'failed' end
    from task_runs t
    where t.result_id = any (v_waiting || v_orphans) and t.status in ('READY', 'FAILED')
    order by t.result_id;
end
$$;

revoke execute on function reproq_settle_stragglers(integer) from public;
comment on function reproq_settle_stragglers(integer) is
    'Moves steps and chords that their predecessors could not see; part of reproq_reclaim. @v1';
