create or replace function reproq_enqueue_many(p_tasks jsonb)
returns table (ordinal integer, result_id bigint, created boolean)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
#variable_conflict use_column
-- Enqueues an array of tasks in the caller's transaction, all or none. Keys of a task: those of reproq_enqueue
-- without p_; only task_path is required. One row per task, in order: the new task (created), or the active
-- one with the same spec. They start in the order given when nothing else tells them apart.
-- Raises RQ001 unless p_tasks is an array, RQ002 on a bad task; then nothing is enqueued.
-- Locks: waits for an uncommitted twin of another session; twins in hash order, so two calls cannot deadlock.
declare
    v_now timestamptz := reproq_now();
    v_ids bigint[];
    v_specs jsonb[];
    v_hashes text[];
    v_found bigint[];
begin
    if jsonb_typeof(p_tasks) is distinct from 'array' then
        raise exception 'reproq_enqueue_many: p_tasks must be a JSON array of tasks'
            using errcode = 'RQ001', hint = 'Pass for example [{"task_path": "app.tasks.send", "args": [1]}].';
    end if;
    perform reproq_check_task(e.task, e.place) from jsonb_array_elements(p_tasks) with ordinality as e (task, place);

    select array_agg(s.id order by s.place), array_agg(s.spec order by s.place), array_agg(s.hash order by s.place)
    into v_ids, v_specs, v_hashes
    from (
        select e.place, nextval(pg_get_serial_sequence('task_runs', 'result_id')) as id, b.spec,
               case when coalesce((e.task ->> 'dedupe')::boolean, true) then reproq_spec_hash(b.spec)
                    else replace(gen_random_uuid()::text, '-', '') end as hash
        from jsonb_array_elements(p_tasks) with ordinality as e (task, place)
        cross join lateral (select reproq_build_spec(e.task) as spec) b
        order by e.place) s;

    -- A twin may end between the insert and the look that follows: then insert again.
    loop
        insert into task_runs (result_id, queue_name, priority, run_after, spec_json, spec_hash, task_path, enqueued_at,
            max_attempts, timeout_seconds, lock_key, concurrency_key, concurrency_limit, expires_at)
        select u.id, u.spec ->> 'queue_name', (u.spec ->> 'priority')::integer, (e.task ->> 'run_after')::timestamptz,
               u.spec, u.hash, u.spec ->> 'task_path', v_now, (u.spec #>> '{exec,max_attempts}')::integer,
               (u.spec #>> '{exec,timeout_seconds}')::integer, u.spec ->> 'lock_key', u.spec ->> 'concurrency_key',
               (u.spec ->> 'concurrency_limit')::integer, (e.task ->> 'expires_at')::timestamptz
        from unnest(v_ids, v_specs, v_hashes) with ordinality as u (id, spec, hash, place)
        join jsonb_array_elements(p_tasks) with ordinality as e (task, place) on e.place = u.place
        where v_found[u.place] is null
        order by u.hash, u.place
        on conflict (spec_hash) where status in ('READY', 'RUNNING') do nothing;

        select array_agg(a.result_id order by u.place) into v_found
        from unnest(v_hashes) with ordinality as u (hash, place)
        left join task_runs a on a.spec_hash = u.hash and a.status in ('READY', 'RUNNING');
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
    'Enqueues an array of tasks, all or none; the task or its active twin for each. @v1';
