create or replace function reproq_claim(
    p_worker_id text,
    p_queues text[],
    p_limit integer,
    p_lease interval,
    p_aging_factor double precision default 60,
    p_hint jsonb default null,
    p_incarnation uuid default null
) returns table (
    result_id bigint, lease_token uuid, queue_name text, priority integer, task_path text, spec_json jsonb,
    attempts integer, max_attempts integer, timeout_seconds integer, enqueued_at timestamptz, waited interval,
    lost_count integer, limit_key text, ready_since timestamptz
)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Takes up to p_limit due tasks, in the order in which they should start, each with a lease of p_lease and
-- a new lease_token. Empty = nothing can start now; reproq_next_wake says when to ask again.
-- p_aging_factor: seconds of waiting worth one priority, 0 = none. p_hint: [{queue_name, limit_key, priority,
-- since}] reads these streams only, each from since on (ready_since of the last task taken there).
-- Raises RQ001 on bad arguments, RQ003 unless READ COMMITTED.
-- Works in passes: look (no locks), lock what it takes (skip locked), decide keys, until full, dry, 200 other tasks
-- were written (blocked, relabelled, ended) or 1,000 beyond p_limit were read. After a pass with tasks that cannot
-- start the next one locks four times as many; after a pass with rows that other sessions hold it looks eight times as
-- far. A dry claim looks for blocked tasks with a free key. A quarantined task (it lost its lease twice) runs alone:
-- only a worker that holds nothing gets it, and gets nothing else until it ends.
-- Locks: tasks (skip), keys (try), last buckets (waiting). Never waits for a task.
-- Writes: taken tasks RUNNING; tasks of busy keys blocked, and unblocked when another claim took the token meanwhile;
-- wrong labels corrected; expired and cancelled tasks ended.
declare
    v_now timestamptz;
    v_seen bigint[] := '{}';
    v_ids bigint[] := '{}';
    v_buckets text[] := '{}';
    v_locks text[] := '{}';
    v_keys text[] := '{}';
    v_slots integer[] := '{}';
    v_given text[] := '{}';
    v_keyed integer := 0;
    v_written integer := 0;
    v_paid integer[];
    v_unpaid bigint[];
    v_pass record;
    v_lock integer := p_limit;
    v_look integer := p_limit;
    v_swept boolean := false;
begin
    perform _reproq_require_read_committed();
    perform _reproq_check_claim('reproq_claim', p_worker_id, p_queues, p_limit, p_lease, p_aging_factor, p_hint);
    if _reproq_runs_quarantined(p_worker_id, p_incarnation) then
        return;
    end if;
    v_now := reproq_now();
    loop
        select * into v_pass
        from _reproq_claim_pass(p_queues, p_limit - cardinality(v_ids), v_lock, v_look, v_now, p_aging_factor, p_hint,
                               v_seen, v_buckets, v_locks, v_keys, v_slots, v_keyed,
                               p_worker_id, p_incarnation);
        v_seen := v_seen || v_pass.seen;
        v_ids := v_ids || v_pass.ids;
        v_buckets := v_buckets || v_pass.buckets;
        v_locks := v_locks || v_pass.locks;
        v_keys := v_keys || v_pass.keys;
        v_slots := v_slots || v_pass.slots;
        v_given := v_given || array(select 'l:' || l from unnest(v_pass.locks) l)
                           || array(select 'c:' || k from unnest(v_pass.keys) k);
        v_keyed := v_keyed + v_pass.keyed;
        v_written := v_written + v_pass.written;
        exit when v_pass.quarantined or cardinality(v_ids) >= p_limit or v_written >= 200
            or cardinality(v_seen) >= p_limit + 1000;
        v_lock := case when v_pass.some_cannot_start then least(4 * v_lock, p_limit + 200) else p_limit - cardinality(v_ids) end;
        v_look := greatest(v_lock, case when v_pass.contended then least(8 * v_look, p_limit + 200) else v_look end);
        continue when v_pass.more;
        exit when v_swept;
        v_swept := true;
        exit when _reproq_unblock_free(100, v_given) = 0;
    end loop;
    if not v_swept and exists (
        select from (select from task_runs t where t.status = 'READY' and t.blocked_on <> ''
                     order by md5(t.blocked_on) limit 1) p)
    then
        perform _reproq_unblock_free(4, v_given);
    end if;
    if array_remove(v_buckets, null) <> '{}' then
        begin
            v_paid := array(select p.place from _reproq_take_tokens(v_buckets, v_now) p);
        exception when lock_not_available then
            -- Another session holds a bucket for long: that stops only tasks that need a token.
            v_paid := array_positions(v_buckets, null);
        end;
        v_unpaid := v_ids;
        select coalesce(array_agg(u.id order by u.place), '{}'), coalesce(array_agg(u.slot order by u.place), '{}')
        into v_ids, v_slots
        from unnest(v_ids, v_slots) with ordinality as u (id, slot, place)
        where u.place = any (v_paid);
        v_unpaid := array(select u.id from unnest(v_unpaid) as u (id) where u.id <> all (v_ids));
        perform _reproq_release_keys(v_unpaid) where cardinality(v_unpaid) > 0;
    end if;

    return query
    with taken as (
        update task_runs t
        set status = 'RUNNING', lease_token = gen_random_uuid(), leased_until = v_now + p_lease,
            leased_by = p_worker_id, leased_incarnation = p_incarnation,
            concurrency_slot = u.slot, attempts = t.attempts + 1,
            started_at = coalesce(t.started_at, v_now), last_attempted_at = v_now, updated_at = v_now,
            worker_ids = _reproq_append_bounded(t.worker_ids, to_jsonb(p_worker_id))
        from unnest(v_ids, v_slots) with ordinality as u (id, slot, place)
        where t.result_id = any (array[u.id])
        returning t.*, u.place
    )
    select k.result_id, k.lease_token, k.queue_name, k.priority, k.task_path, k.spec_json, k.attempts,
           k.max_attempts, k.timeout_seconds, k.enqueued_at, v_now - greatest(k.enqueued_at, k.run_after),
           k.lost_count, k.limit_key, greatest(k.enqueued_at, k.run_after)
    from taken k
    order by k.place;
end
$$;

revoke execute on function reproq_claim(text, text[], integer, interval, double precision, jsonb, uuid) from public;
comment on function reproq_claim(text, text[], integer, interval, double precision, jsonb, uuid) is
    'Takes due tasks in priority order and gives a lease on each; what a worker calls when it wakes. @0.1.0';
