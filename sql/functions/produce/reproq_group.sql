create or replace function reproq_group(p_tasks jsonb)
returns table (workflow_id uuid, ordinal integer, result_id bigint)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Enqueues tasks that run side by side under one workflow_id. Keys of a task: as in reproq_enqueue_many, without
-- dedupe and unique_key. One row per task, in order; none for an empty array. Raises RQ001 unless p_tasks is an array, RQ002.
declare
    v_workflow_id uuid := gen_random_uuid();
    v_ids bigint[];
begin
    v_ids := _reproq_insert_workflow('reproq_group', p_tasks, v_workflow_id, 'group');
    return query
    select v_workflow_id, u.place::integer, u.id
    from unnest(v_ids) with ordinality as u (id, place)
    order by u.place;
end
$$;

revoke execute on function reproq_group(jsonb) from public;
comment on function reproq_group(jsonb) is
    'Enqueues tasks (as for reproq_enqueue_many) that run side by side; one row each. @0.1.0';
