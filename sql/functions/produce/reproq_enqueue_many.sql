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
-- without p_; only task_path is required. One row per task, in order: the new task (created), or the one that dedupe
-- or unique_key found. They start in the order given when nothing else tells them apart.
-- Raises RQ001 unless p_tasks is an array, RQ002 on a bad task; then nothing is enqueued.
-- Locks: those of _reproq_enqueue_unique and _reproq_enqueue_deduped, in the order of digests, so two calls cannot deadlock.
declare
    v_now timestamptz := reproq_now();
    v_sequence regclass := pg_get_serial_sequence('task_runs', 'result_id');
    v_ids bigint[];
    v_found bigint[];
    v_task record;
begin
    perform _reproq_check_tasks('reproq_enqueue_many', p_tasks);
    v_ids := array(select nextval(v_sequence) from generate_series(1, jsonb_array_length(p_tasks)));
    v_found := v_ids;
    if jsonb_path_exists(p_tasks, '$[*] ? (@.dedupe == true || @.unique_key != null)') then
        for v_task in
            select s.*, case when s.unique_key is null then _reproq_task_hash(s.spec)
                             else encode(_reproq_unique_digest(s.task_path, s.unique_key), 'hex') end as digest
            from (select t.*, _reproq_build_spec(t.task_path, t.args, t.kwargs, t.queue_name, t.priority, t.run_after,
                         t.lock_key, t.concurrency_key, t.concurrency_limit, t.max_attempts, t.timeout_seconds,
                         t.takes_context, t.backoff_seconds) as spec
                  from _reproq_read_tasks(p_tasks, v_now) t
                  where t.dedupe or t.unique_key is not null) s
            order by digest, s.place
        loop
            v_found[v_task.place] := case when v_task.unique_key is null
                then _reproq_enqueue_deduped(v_ids[v_task.place], v_task.spec, v_task.digest, v_task.run_after,
                    v_task.expires_at, v_now)
                else _reproq_enqueue_unique(v_ids[v_task.place], v_task.spec, v_task.run_after, v_task.expires_at,
                    v_task.unique_key, v_task.unique_for, v_task.unique_while, v_task.on_duplicate, v_now) end;
        end loop;
    end if;
    perform _reproq_insert_tasks(p_tasks, v_ids, v_now);
    return query
    select u.place::integer, u.found, u.found = u.id
    from unnest(v_ids, v_found) with ordinality as u (id, found, place)
    order by u.place;
end
$$;

revoke execute on function reproq_enqueue_many(jsonb) from public;
comment on function reproq_enqueue_many(jsonb) is
    'Enqueues a JSON array of tasks; one row each: the new task, or the one that dedupe or unique_key found. @0.1.0';
