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
-- Fewer than could start when their specs together have more than 8 MiB (one at least): the rest stays claimable.
-- If one stream of one queue has all the tasks, they have no keys and nothing limits it, its first tasks are taken
-- here. All other cases are _reproq_claim_merged's: several streams, keys, buckets, large specs.
-- A worker that runs a quarantined task (it lost its lease twice) gets nothing else until that ends.
-- Locks: tasks (skip), keys (try), last buckets (waiting). Never waits for a task.
-- Writes: taken tasks RUNNING; see _reproq_claim_merged.
declare
    v_now timestamptz;
    v_is_some boolean := true;
    v_is_stream boolean := false;
    v_is_plain boolean;
    v_limit_key text;
    v_priority integer;
    v_since timestamptz := '-infinity';
    v_ids bigint[];
    v_slots integer[];
begin
    if p_worker_id is null or p_worker_id = '' or octet_length(p_worker_id) > 512
       or p_queues is null or cardinality(p_queues) = 0 or array_position(p_queues, null) is not null
       or p_limit is null or p_limit not between 1 and 10000
       or p_lease is null or p_lease not between interval '1 ms' and interval '30 days'
       or p_aging_factor is null or p_aging_factor <> 0 and not p_aging_factor between 0.001 and 1e300
       or p_hint is not null then
        perform _reproq_check_claim('reproq_claim', p_worker_id, p_queues, p_limit, p_lease, p_aging_factor, p_hint);
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        perform _reproq_require_read_committed();
    end if;
    v_now := reproq_now();

    if cardinality(p_queues) > 1 then
        v_is_some := exists (
            select from unnest(p_queues) as q (name)
            where exists (
                select from (select from task_runs t
                             where t.queue_name = q.name and t.status = 'READY' and t.blocked_on = ''
                             order by t.queue_name, t.limit_key, t.priority desc, greatest(t.enqueued_at, t.run_after),
                                      t.result_id
                             limit 1) f));
    elsif p_hint is null then
        select t.limit_key, t.priority into v_limit_key, v_priority
        from task_runs t
        where t.queue_name = p_queues[1] and t.status = 'READY' and t.blocked_on = ''
        order by t.queue_name, t.limit_key, t.priority desc, greatest(t.enqueued_at, t.run_after), t.result_id
        limit 1;
        v_is_some := found;
        v_is_stream := found;
    elsif jsonb_array_length(p_hint) = 1 then
        select h.limit_key, h.priority, h.since into v_limit_key, v_priority, v_since
        from jsonb_to_recordset(p_hint) as h (queue_name text, limit_key text, priority numeric, since timestamptz)
        where h.queue_name = p_queues[1];
        v_is_stream := found;
    end if;
    if v_is_stream then
        -- The first and the last entry of a queue in the claim index are of one stream: it has no other.
        v_is_stream := not exists (select from rate_limits r where r.tokens_per_second > 0 or r.throttled_until > v_now)
            and not exists (select from reproq_queue_controls c where c.queue_name = p_queues[1] and c.paused)
            and (p_hint is not null or (
                select l.limit_key = v_limit_key and l.priority = v_priority
                from (select t.limit_key, t.priority
                      from task_runs t
                      where t.queue_name = p_queues[1] and t.status = 'READY' and t.blocked_on = ''
                      order by t.queue_name desc, t.limit_key desc, t.priority, greatest(t.enqueued_at, t.run_after) desc,
                               t.result_id desc
                      limit 1) l))
            and not exists (
                select from (
                    select t.leased_incarnation
                    from task_runs t
                    where t.leased_by between p_worker_id and p_worker_id and t.lost_count >= 2 and t.leased_until is not null
                    order by t.leased_by, t.lost_count limit 1000) q
                where q.leased_incarnation is not distinct from p_incarnation);
    end if;
    if v_is_stream then
        select array_agg(l.result_id), bool_and(l.is_plain) and sum(l.spec_at_most) <= 8388608 into v_ids, v_is_plain
        from (
            select n.result_id, n.is_plain, n.spec_at_most
            from (
                select t.result_id
                from task_runs t
                where t.queue_name = p_queues[1] and t.limit_key = v_limit_key and t.priority = v_priority
                  and t.status = 'READY' and t.blocked_on = ''
                  and greatest(t.enqueued_at, t.run_after) between v_since and v_now
                order by greatest(t.enqueued_at, t.run_after), t.result_id
                limit p_limit + 1000) c
            cross join lateral (
                select t.result_id,
                       coalesce(t.lock_key, '') = '' and coalesce(t.concurrency_key, '') = '' and t.lost_count < 2
                       and not t.cancel_requested and coalesce(t.expires_at > v_now, true) as is_plain,
                       _reproq_spec_at_most(t.spec_json) as spec_at_most
                from task_runs t
                where t.result_id = c.result_id and t.status || '' = 'READY' and t.blocked_on || '' = ''
                  and t.queue_name || '' = p_queues[1] and t.limit_key || '' = v_limit_key
                  and t.priority + 0 = v_priority
                  and greatest(t.enqueued_at, t.run_after) + interval '0' <= v_now
                for no key update skip locked) n
            limit p_limit) l;
    end if;

    if v_is_plain then
        if cardinality(v_ids) = 1 then
            return query
            update task_runs t
            set status = 'RUNNING', lease_token = gen_random_uuid(), leased_until = v_now + p_lease,
                leased_by = p_worker_id, leased_incarnation = p_incarnation,
                attempts = t.attempts + 1, revision = t.revision + 1,
                started_at = coalesce(t.started_at, v_now), last_attempted_at = v_now, updated_at = v_now,
                worker_ids = case t.worker_ids when '[]' then jsonb_build_array(p_worker_id)
                             else _reproq_append_bounded(t.worker_ids, to_jsonb(p_worker_id)) end
            where t.result_id = v_ids[1]
            returning t.result_id, t.lease_token, t.queue_name, t.priority, t.task_path, t.spec_json, t.attempts,
                      t.max_attempts, t.timeout_seconds, t.enqueued_at, v_now - greatest(t.enqueued_at, t.run_after),
                      t.lost_count, t.limit_key, greatest(t.enqueued_at, t.run_after);
        else
            return query
            with taken as (
                update task_runs t
                set status = 'RUNNING', lease_token = gen_random_uuid(), leased_until = v_now + p_lease,
                    leased_by = p_worker_id, leased_incarnation = p_incarnation,
                    attempts = t.attempts + 1, revision = t.revision + 1,
                    started_at = coalesce(t.started_at, v_now), last_attempted_at = v_now, updated_at = v_now,
                    worker_ids = case t.worker_ids when '[]' then jsonb_build_array(p_worker_id)
                                 else _reproq_append_bounded(t.worker_ids, to_jsonb(p_worker_id)) end
                where t.result_id = any (v_ids)
                returning t.result_id, t.lease_token, t.queue_name, t.priority, t.task_path, t.spec_json, t.attempts,
                          t.max_attempts, t.timeout_seconds, t.enqueued_at, t.lost_count, t.limit_key,
                          greatest(t.enqueued_at, t.run_after) as ready_since
            )
            select k.result_id, k.lease_token, k.queue_name, k.priority, k.task_path, k.spec_json, k.attempts,
                   k.max_attempts, k.timeout_seconds, k.enqueued_at, v_now - k.ready_since, k.lost_count, k.limit_key,
                   k.ready_since
            from taken k
            order by k.ready_since, k.result_id;
        end if;
        -- A task may have been left blocked on a free key; claims that are never dry look for one now and then.
        if random() < 0.125 then
            perform _reproq_unblock_free(4);
        end if;
        return;
    end if;
    if not v_is_some and not exists (
            select from (select from task_runs t where t.status = 'READY' and t.blocked_on <> ''
                         order by hashtextextended(t.blocked_on, 0) limit 1) b) then
        return;
    end if;
    if exists (
            select from (
                select t.leased_incarnation
                from task_runs t
                where t.leased_by between p_worker_id and p_worker_id and t.lost_count >= 2 and t.leased_until is not null
                order by t.leased_by, t.lost_count limit 1000) q
            where q.leased_incarnation is not distinct from p_incarnation) then
        return;
    end if;
    select m.ids, m.slots into v_ids, v_slots
    from _reproq_claim_merged(p_worker_id, p_incarnation, p_queues, p_limit, p_aging_factor, p_hint, v_now) m;

    return query
    with taken as (
        update task_runs t
        set status = 'RUNNING', lease_token = gen_random_uuid(), leased_until = v_now + p_lease,
            leased_by = p_worker_id, leased_incarnation = p_incarnation,
            concurrency_slot = u.slot, attempts = t.attempts + 1, revision = t.revision + 1,
            started_at = coalesce(t.started_at, v_now), last_attempted_at = v_now, updated_at = v_now,
            worker_ids = case t.worker_ids when '[]' then jsonb_build_array(p_worker_id)
                         else _reproq_append_bounded(t.worker_ids, to_jsonb(p_worker_id)) end
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
    'Takes due tasks and gives a lease on each, in the order of priority + age / aging factor; at 16 priorities or more, of the hundred tasks with the highest ones and the hundred that are ready longest. What a worker calls when it wakes. @0.1.0';
