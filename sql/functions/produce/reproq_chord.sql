create or replace function reproq_chord(p_tasks jsonb, p_callback jsonb)
returns table (workflow_id uuid, ordinal integer, result_id bigint)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Enqueues tasks that run side by side, and a callback that runs when all have succeeded (at once when there are
-- none); when one fails for good the callback ends as workflow_failed. Keys: as in reproq_enqueue_many, without
-- dedupe and unique_key.
-- One row per member, in order, then the callback with ordinal 0. Atomic, 10,000 members and more.
-- Raises RQ001 unless p_tasks is an array, RQ002.
declare
    v_workflow_id uuid := gen_random_uuid();
    v_ids bigint[];
    v_callback_id bigint;
    v_members integer;
begin
    v_ids := _reproq_insert_workflow('reproq_chord', case when jsonb_typeof(p_tasks) = 'array'
        then p_tasks || jsonb_build_array(p_callback) end, v_workflow_id, 'chord');
    v_members := jsonb_array_length(p_tasks);
    v_callback_id := v_ids[v_members + 1];
    insert into workflow_runs (workflow_id, expected_count, callback_result_id, status)
    values (v_workflow_id, v_members, v_callback_id, case when v_members = 0 then 'WAITING_CALLBACK' else 'RUNNING' end);
    return query
    select v_workflow_id, case when u.id = v_callback_id then 0 else u.place::integer end, u.id
    from unnest(v_ids) with ordinality as u (id, place)
    order by u.place;
end
$$;

revoke execute on function reproq_chord(jsonb, jsonb) from public;
comment on function reproq_chord(jsonb, jsonb) is
    'Enqueues tasks (as for reproq_enqueue_many) that run side by side and a callback for when all have succeeded; one row each, the callback has ordinal 0. @0.1.0';
