create or replace function _reproq_enqueue_deduped(
    p_result_id bigint, p_spec jsonb, p_hash text, p_run_after timestamptz, p_expires_at timestamptz, p_now timestamptz
) returns bigint
language plpgsql volatile parallel unsafe
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- Enqueues a task as p_result_id and returns that, or the READY or RUNNING task with its hash.
-- A READY duplicate is held. One that is expired or whose cancel is requested is none: it gets another hash, and ends as
-- it would have. The insert comes first, because the unique index knows what is committed by now, whatever the caller's
-- snapshot shows; at REPEATABLE READ and above, a duplicate that the snapshot does not show raises 40001.
-- Locks: waits for a concurrent producer of this spec and for the duplicate.
declare
    v_found record;
begin
    loop
        if _reproq_insert_task(p_result_id, p_spec, p_hash, p_run_after, p_expires_at, p_now) then
            return p_result_id;
        end if;
        select t.result_id, t.status,
               t.cancel_requested or t.status || '' = 'READY' and coalesce(t.expires_at <= p_now, false) as is_ending
        into v_found
        from task_runs t
        where t.spec_hash between p_hash and p_hash and t.status in ('READY', 'RUNNING') and length(t.spec_hash) = 64
        order by t.spec_hash
        limit 1;
        continue when not found;  -- it has ended since
        if v_found.is_ending then
            update task_runs t
            set spec_hash = replace(gen_random_uuid()::text, '-', ''), updated_at = p_now, revision = t.revision + 1
            where t.result_id = v_found.result_id and t.spec_hash || '' = p_hash
              and (t.cancel_requested or t.status || '' = 'READY' and coalesce(t.expires_at <= p_now, false));
        elsif v_found.status = 'RUNNING' or _reproq_hold_duplicate(v_found.result_id, p_expires_at, p_now) then
            return v_found.result_id;
        end if;
    end loop;
end
$$;

revoke execute on function _reproq_enqueue_deduped(bigint, jsonb, text, timestamptz, timestamptz, timestamptz) from public;
comment on function _reproq_enqueue_deduped(bigint, jsonb, text, timestamptz, timestamptz, timestamptz) is
    'Enqueues a task, or finds the READY or RUNNING one with the same spec. @0.1.0';
