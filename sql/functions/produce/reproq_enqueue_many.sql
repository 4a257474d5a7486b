create or replace function reproq_enqueue_many(p_tasks jsonb)
returns table (ordinal integer, result_id bigint, created boolean)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Enqueues an array of tasks in the caller's transaction, all or none. Keys of a task: those of reproq_enqueue
-- without p_; only task_path is required. One row per task, in order: the new task (created), or the active
-- one with the same spec. They start in the order given when nothing else tells them apart.
-- Raises RQ001 unless p_tasks is an array, RQ002 on a bad task; then nothing is enqueued.
-- Locks: waits for an uncommitted duplicate of another session; duplicates in hash order, so two calls cannot deadlock.
declare
    v_ids bigint[];
    v_specs jsonb[];
    v_hashes text[];
    v_tasks jsonb[];
    v_found bigint[];
begin
    perform _reproq_check_task_array('reproq_enqueue_many', p_tasks);
    select array_agg(b.id order by b.place), array_agg(b.spec order by b.place), array_agg(b.hash order by b.place),
           array_agg(b.task order by b.place)
    into v_ids, v_specs, v_hashes, v_tasks
    from _reproq_build_tasks(p_tasks, true) b;

    -- A duplicate may end between the insert and the select that follows: then insert again.
    loop
        perform _reproq_insert_tasks(array_agg(u.id), array_agg(u.spec), array_agg(u.hash), array_agg(u.task),
            array_fill('READY'::text, array[count(*)::integer]), null, null, null)
        from unnest(v_ids, v_specs, v_hashes, v_tasks) with ordinality as u (id, spec, hash, task, place)
        where v_found[u.place] is null;

        select array_agg(a.result_id order by u.place) into v_found
        from unnest(v_hashes) with ordinality as u (hash, place)
        left join lateral (
            select t.result_id from task_runs t
            where t.spec_hash between u.hash and u.hash and t.status in ('READY', 'RUNNING')
            order by t.spec_hash
            limit 1) a on true;
        exit when array_position(v_found, null) is null;
    end loop;
    return query
    select u.place::integer, u.found, u.found = u.id
    from unnest(v_ids, v_found) with ordinality as u (id, found, place)
    order by u.place;
end
$$;

revoke execute on function reproq_enqueue_many(jsonb) from public;
comment on function reproq_enqueue_many(jsonb) is
    'Enqueues [{"task_path": ..., "args": [...]}, ...], all or none; keys as the parameters of reproq_enqueue without p_; one row a task, created = false for a duplicate. @0.1.0';
