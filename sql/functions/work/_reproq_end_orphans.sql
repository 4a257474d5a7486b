create or replace function _reproq_end_orphans(p_limit integer)
returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe
as $$
#variable_conflict use_column
-- Ends (parent_failed) WAITING tasks that nothing can ever start: a step with a deleted predecessor, a callback
-- without its workflow row, a step of a chord that is not its callback. After a minute only: the rest of a workflow
-- may just be on its way. Looks at 10 x p_limit WAITING tasks, each time from another random one.
-- Locks: the tasks (skip locked), then _reproq_try_end; rows that another session holds are left to the next call.
declare
    v_until timestamptz := reproq_now() - interval '1 minute';
    v_ids bigint[];
begin
    v_ids := array(
        select s.result_id
        from _reproq_some_waiting(least(p_limit, 100000) * 10) s
        where s.parent_id is null and s.updated_at < v_until
          and not exists (
              select from workflow_runs w
              where w.workflow_id = s.workflow_id and coalesce(w.callback_result_id, s.result_id) = s.result_id)
        limit p_limit);
    with locked as materialized (
        select t.result_id, t.status, t.parent_id from task_runs t
        where t.result_id = any (v_ids)
        order by t.result_id
        for no key update skip locked)
    select coalesce(array_agg(l.result_id), '{}') into v_ids from locked l
    where l.status = 'WAITING' and l.parent_id is null;
    v_ids := array(select u.id from unnest(v_ids) as u (id) where _reproq_try_end(u.id));
    if cardinality(v_ids) > 0 then
        perform _reproq_finish(v_ids, null, array_fill(
            jsonb_build_object('kind', 'parent_failed', 'message', 'what it waited for was deleted'),
            array[cardinality(v_ids)]));
    end if;
    return query select u.id, 'failed'::text from unnest(v_ids) as u (id);
end
$$;

revoke execute on function _reproq_end_orphans(integer) from public;
comment on function _reproq_end_orphans(integer) is
    'Ends waiting tasks with a deleted predecessor; part of reproq_reclaim. @0.1.0';
