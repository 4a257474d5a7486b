create or replace function _reproq_insert_workflow(p_tasks jsonb, p_workflow_id uuid, p_kind text)
returns table (place bigint, id bigint)
language plpgsql volatile parallel unsafe
as $$
#variable_conflict use_column
-- Inserts the tasks of a workflow in one statement. p_kind: chain (each waits for the one before it), group, or
-- chord (the last one waits for all others). Random hashes: a step never collides with a duplicate. Raises RQ002.
declare
    v_ids bigint[];
    v_places bigint[];
    v_specs jsonb[];
    v_tasks jsonb[];
    v_count integer := jsonb_array_length(p_tasks);
begin
    select array_agg(b.id order by b.place), array_agg(b.place order by b.place),
           array_agg(b.spec order by b.place), array_agg(b.task order by b.place)
    into v_ids, v_places, v_specs, v_tasks
    from _reproq_build_tasks(p_tasks, false) b;

    perform _reproq_insert_tasks(v_ids, v_specs, array_agg(w.hash), v_tasks,
        array_agg(case when w.waits_for > 0 then 'WAITING' else 'READY' end order by w.place),
        array_agg(case when p_kind = 'chain' then v_ids[w.place - 1] end order by w.place),
        array_agg(w.waits_for order by w.place), p_workflow_id)
    from (
        select u.place, replace(gen_random_uuid()::text, '-', '') as hash,
               case when p_kind = 'chain' and u.place > 1 then 1
                    when p_kind = 'chord' and u.place = v_count then v_count - 1
                    else 0 end as waits_for
        from unnest(v_places) as u (place)) w
    having count(*) > 0;
    return query select u.place, u.id from unnest(v_places, v_ids) as u (place, id);
end
$$;

revoke execute on function _reproq_insert_workflow(jsonb, uuid, text) from public;
comment on function _reproq_insert_workflow(jsonb, uuid, text) is 'Inserts the tasks of a chain, group or chord. @0.1.0';
