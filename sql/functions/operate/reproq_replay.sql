create or replace function reproq_replay(p_result_id bigint) returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Enqueues a new task with the spec of an old one, which stays as it is: replayed (the new task), already_active
-- (the READY or RUNNING task with the same spec, maybe itself, of a task that was enqueued with dedupe), missing (result_id null). The new task is on its
-- own: not a step of the old one's chain or chord, due at once, without the old expires_at.
-- Raises RQ002 when the old row is not a task we could enqueue. Locks: as reproq_enqueue_many. Writes the audit log.
declare
    v_old task_runs%rowtype;
    v_new bigint := nextval(pg_get_serial_sequence('task_runs', 'result_id'));
    v_hash text;
    v_found bigint;
begin
    select t.* into v_old from task_runs t where t.result_id = p_result_id;
    if not found then
        return query select null::bigint, 'missing'::text;
        return;
    end if;
    -- A step of a workflow has a random hash, so that it is never taken for a duplicate: so has its replay.
    v_hash := case when length(v_old.spec_hash) = 64 then v_old.spec_hash
                   else replace(gen_random_uuid()::text, '-', '') end;
    loop
        insert into task_runs (result_id, backend_alias, queue_name, priority, spec_json, spec_hash, task_path, enqueued_at,
            max_attempts, timeout_seconds, lock_key, concurrency_key, concurrency_limit)
        values (v_new, v_old.backend_alias, v_old.queue_name, v_old.priority, v_old.spec_json, v_hash, v_old.task_path,
            reproq_now(), v_old.max_attempts, v_old.timeout_seconds, v_old.lock_key, v_old.concurrency_key,
            v_old.concurrency_limit)
        on conflict (spec_hash) where status in ('READY', 'RUNNING') and length(spec_hash) = 64 do nothing
        returning result_id into v_found;
        exit when found;
        select t.result_id into v_found from task_runs t
        where t.spec_hash = v_hash and t.status in ('READY', 'RUNNING') and length(t.spec_hash) = 64;
        exit when found;
    end loop;
    if v_found = v_new then
        perform _reproq_write_audit('replay', jsonb_build_object('result_id', p_result_id, 'new', v_new));
    end if;
    return query select v_found, case when v_found = v_new then 'replayed' else 'already_active' end;
end
$$;

revoke execute on function reproq_replay(bigint) from public;
comment on function reproq_replay(bigint) is
    'Enqueues a new task with the spec of an old one: replayed, already_active or missing. @0.1.0';
