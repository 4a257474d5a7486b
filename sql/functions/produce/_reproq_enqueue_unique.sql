create or replace function _reproq_enqueue_unique(
    p_result_id bigint, p_spec jsonb, p_run_after timestamptz, p_expires_at timestamptz, p_unique_key text,
    p_unique_for interval, p_unique_while text, p_on_duplicate text, p_now timestamptz
) returns bigint
language plpgsql volatile parallel unsafe
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- Enqueues a task as p_result_id and returns that, or the task of its path that its unique key finds: a queued one, a
-- RUNNING one when p_unique_while is active, one enqueued within p_unique_for. A queued one goes first, and is
-- held. One that expired or was cancelled, or whose cancel is requested, is none.
-- Judged here only: claims and ends of tasks know nothing of keys, and a retry cannot collide. First without the lock of
-- the key, so that producers that meet a duplicate do not wait for each other; a new task, and a duplicate that is
-- written, need the lock and a second look. An UPDATE that waited for a duplicate keeps its lock, also when that is
-- queued no longer: without the order key, task, two producers would wait for each other. At REPEATABLE READ and above, what changed since the caller's snapshot raises 40001.
-- Locks: the row of the key, then the duplicate; waits for both. Writes reproq_unique_keys.
declare
    v_digest bytea := _reproq_unique_digest(p_spec ->> 'task_path', p_unique_key);
    v_locked boolean := false;
    v_found record;
begin
    loop
        select t.result_id, t.status in ('READY', 'WAITING') as is_queued,
               p_on_duplicate = 'replace' or coalesce(t.expires_at, 'infinity') < coalesce(p_expires_at, 'infinity') as is_written
        into v_found
        from reproq_unique_keys k
        join task_runs t on t.result_id = any (k.result_id || k.earlier_ids)
        where k.key_digest = v_digest
          and case
              when t.cancel_requested or t.status = 'CANCELLED' then false
              when t.status in ('READY', 'WAITING') then coalesce(t.expires_at, 'infinity') > p_now
              when t.status = 'FAILED' and t.errors_json #>> '{-1,kind}' in ('cancelled', 'expired') then false
              else t.status = 'RUNNING' and p_unique_while = 'active' or t.enqueued_at > p_now - p_unique_for end
        order by t.status in ('READY', 'WAITING') desc, t.result_id desc
        limit 1;
        if not found then
            exit when v_locked;
            insert into reproq_unique_keys (key_digest, unique_key, result_id)
            values (v_digest, p_unique_key, p_result_id)
            on conflict (key_digest) do nothing;
            exit when found;
            perform from reproq_unique_keys k where k.key_digest = v_digest for no key update;
            v_locked := found;
        elsif v_found.is_queued and v_found.is_written and not v_locked then
            perform from reproq_unique_keys k where k.key_digest = v_digest for no key update;
            v_locked := found;
        elsif not v_found.is_queued or _reproq_hold_duplicate(v_found.result_id, p_expires_at, p_now,
                case when p_on_duplicate = 'replace' then p_spec end, p_run_after) then
            return v_found.result_id;
        end if;
    end loop;
    if v_locked then
        -- Earlier tasks that may be queued again: those that run, and failed ones.
        update reproq_unique_keys k
        set result_id = p_result_id, earlier_ids = array(
            select t.result_id from task_runs t
            where t.result_id = any (k.result_id || k.earlier_ids) and t.status || '' not in ('SUCCESSFUL', 'CANCELLED')
            order by t.result_id desc
            limit 50)
        where k.key_digest = v_digest;
    end if;
    perform _reproq_insert_task(p_result_id, p_spec, replace(gen_random_uuid()::text, '-', ''), p_run_after,
        p_expires_at, p_now);
    return p_result_id;
end
$$;

revoke execute on function _reproq_enqueue_unique(bigint, jsonb, timestamptz, timestamptz, text, interval, text, text, timestamptz) from public;
comment on function _reproq_enqueue_unique(bigint, jsonb, timestamptz, timestamptz, text, interval, text, text, timestamptz) is
    'Enqueues a task, or finds the one that its unique key names. @0.1.0';
