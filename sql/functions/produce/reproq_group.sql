create or replace function reproq_group(p_tasks jsonb)
returns table (workflow_id uuid, ordinal integer, result_id bigint)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Enqueues tasks that run side by side under one workflow_id. Keys of a task: as in reproq_enqueue_many; there is no
-- dedupe. One row per task, in order; none for an empty array. Raises RQ001 unless p_tasks is an array, RQ002.
declare
    v_workflow_id uuid := gen_random_uuid();
begin
    perform _reproq_check_task_array('reproq_group', p_tasks);
    return query
    select v_workflow_id, b.place::integer, b.id
    from _reproq_insert_workflow(p_tasks, v_workflow_id, 'group') b
    order by b.place;
end
$$;

revoke execute on function reproq_group(jsonb) from public;
comment on function reproq_group(jsonb) is
    'Enqueues tasks (as for reproq_enqueue_many) that run side by side; one row each. @0.1.0';
