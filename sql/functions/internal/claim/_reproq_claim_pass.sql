create or replace function _reproq_claim_pass(
    p_queues text[], p_want integer, p_lock integer, p_look integer, p_now timestamptz,
    p_aging_factor double precision, p_hint jsonb,
    p_seen bigint[], p_buckets text[], p_locks text[], p_keys text[], p_slots integer[],
    p_keyed integer, p_busy text[], p_bytes bigint, p_max_bytes bigint, p_worker_id text, p_incarnation uuid,
    out ids bigint[], out buckets text[], out locks text[], out keys text[], out slots integer[],
    out seen bigint[], out keyed integer, out busy text[], out written integer, out bytes bigint,
    out more boolean, out contended boolean, out some_cannot_start boolean, out is_full boolean
)
language plpgsql volatile parallel unsafe
as $$
#variable_conflict use_variable
-- One pass of reproq_claim: of the next p_look candidates, in order, locks p_lock that no other session holds, and
-- sorts them until p_want can start: ids (with bucket, key and slot each), blocked, relabelled, ended. seen: all that
-- it read.
-- is_full: nothing more may be claimed. ids is one quarantined task, which runs alone, only when the worker holds nothing
-- else; or the spec of the next one does not fit into p_max_bytes, of which p_bytes are taken, and bytes by ids. A spec
-- that has more by itself ends its task (payload_too_large). Sizes are measured only where their upper bounds do not fit,
-- each twice at most.
-- more: there may be others behind, a token is left over, or tasks were ended. contended: other
-- sessions hold some, so the next pass should look further. some_cannot_start: of those that it locked. written: how
-- many it blocked, relabelled or ended.
-- p_buckets, p_locks, p_keys, p_slots: given in earlier passes.
-- keyed, p_keyed: tasks with keys decided here, and before, without those of a key already found busy here. After 200 in
-- a claim the others are left to the next, so that claims cannot exhaust the server's lock table.
-- A key that blocks eight has a backlog: up to 2,000 others of it are blocked at once, and later passes step over the
-- rest. busy, p_busy: such keys, found here and before.
-- Locks: tasks (skip locked), keys (try); a task that should end is left when _reproq_try_end cannot have it.
declare
    v_ending bigint[] := '{}';
    v_errors jsonb[] := '{}';
    v_relabel bigint[] := '{}';
    v_block bigint[] := '{}';
    v_block_on text[] := '{}';
    v_given_up text[] := '{}';
    v_task record;
    v_verdict text;
    v_slot integer;
    v_bytes bigint;
    v_measured integer := 0;
    v_measured_bytes bigint := 0;
    v_metered integer := 0;
    v_locked integer := 0;
begin
    ids := '{}'; buckets := '{}'; locks := '{}'; keys := '{}'; slots := '{}'; seen := '{}';
    keyed := 0; written := 0; more := false; contended := false; some_cannot_start := false;
    is_full := false; bytes := 0;
    for v_task in
        with candidates as materialized (
            select c.*, row_number() over () as place, count(*) over () as found
            from _reproq_candidates(p_queues, p_look, p_now, p_aging_factor, p_hint, p_seen, p_buckets, p_busy) c
        ), locked as materialized (
            select c.place, l.*
            from (select c.place, c.result_id, c.queue_name, c.limit_key from candidates c order by c.place) c
            cross join lateral (
                select t.lock_key, t.concurrency_key, t.concurrency_limit,
                       t.lost_count >= 2 and greatest(t.enqueued_at, t.run_after) > p_now - interval '5 minutes' as quarantined,
                       case when t.cancel_requested then 'cancelled' when t.expires_at <= p_now then 'expired' end as end_kind,
                       _reproq_spec_at_most(t.spec_json) as spec_at_most,
                       t.status || '' = 'READY' and t.blocked_on || '' = '' and t.queue_name || '' = c.queue_name
                       and t.limit_key || '' = c.limit_key and greatest(t.enqueued_at, t.run_after) <= p_now as is_ready
                from task_runs t
                where t.result_id = c.result_id
                for no key update skip locked) l
            where l.is_ready
            limit p_lock
        )
        select c.*, l.place is not null as is_locked, l.lock_key, l.concurrency_key, l.concurrency_limit, l.quarantined, l.end_kind,
               l.spec_at_most
        from candidates c
        left join locked l on l.place = c.place
        where c.place <= coalesce((select max(l.place) from locked l having count(*) >= p_lock), p_look)
        order by c.place
    loop
        exit when is_full or cardinality(ids) >= p_want;
        seen := seen || v_task.result_id;
        more := v_task.place < v_task.found or v_task.found >= p_look;
        v_metered := v_metered + (v_task.bucket is not null)::integer;
        v_locked := v_locked + v_task.is_locked::integer;
        if not v_task.is_locked then
            contended := true;
            continue;
        end if;
        v_bytes := v_task.spec_at_most;
        if p_bytes + bytes + v_bytes > p_max_bytes then
            v_measured_bytes := v_measured_bytes + (
                select coalesce(sum(octet_length(t.spec_json::text)), 0)
                from task_runs t
                where t.result_id = any (ids[v_measured + 1:]));
            v_measured := cardinality(ids);
            bytes := v_measured_bytes;
            v_bytes := (select octet_length(t.spec_json::text) from task_runs t where t.result_id = v_task.result_id);
            if v_bytes > p_max_bytes then
                v_task.end_kind := coalesce(v_task.end_kind, 'payload_too_large');
            end if;
        end if;
        if v_task.end_kind is not null then
            continue when not _reproq_try_end(v_task.result_id);
            v_ending := v_ending || v_task.result_id;
            v_errors := v_errors || jsonb_build_object('kind', v_task.end_kind, 'message', case v_task.end_kind
                when 'expired' then 'not started before expires_at'
                when 'cancelled' then 'cancelled before it started'
                else 'its spec has ' || v_bytes || ' bytes, and a claim may have ' || p_max_bytes end);
        elsif p_bytes + bytes + v_bytes > p_max_bytes then
            is_full := true;
        elsif v_task.own_limit_key <> v_task.limit_key and v_task.own_limit_key <> '' then
            v_relabel := v_relabel || v_task.result_id;
        elsif v_task.quarantined and (cardinality(p_locks || locks) > 0 or not _reproq_runs_nothing(p_worker_id, p_incarnation)) then
            continue;
        elsif p_keyed + keyed >= 200 and (v_task.lock_key <> '' or v_task.concurrency_key <> '')
              and not _reproq_is_busy(v_block_on, v_task.lock_key, v_task.concurrency_key, v_task.concurrency_limit) then
            continue;
        else
            -- A key that this pass found busy stays busy until this transaction ends: its lock is held here.
            v_verdict := case when 'l:' || v_task.lock_key = any (v_block_on) then 'l:' || v_task.lock_key
                              when v_task.concurrency_limit > 0 and 'c:' || v_task.concurrency_key = any (v_block_on)
                              then 'c:' || v_task.concurrency_key else '' end;
            v_slot := null;
            if v_verdict = '' and (v_task.lock_key <> '' or v_task.concurrency_key <> '') then
                keyed := keyed + 1;
                select a.verdict, a.slot into v_verdict, v_slot
                from _reproq_admit_keys(v_task.lock_key, v_task.concurrency_key, v_task.concurrency_limit,
                                       p_locks || locks, p_keys || keys, p_slots || slots) a;
            end if;
            if v_verdict = '' then
                ids := ids || v_task.result_id;
                buckets := buckets || v_task.bucket;
                locks := locks || v_task.lock_key;
                keys := keys || case when v_slot is not null then v_task.concurrency_key end;
                slots := slots || v_slot;
                bytes := bytes + v_bytes;
                is_full := v_task.quarantined;
            elsif v_verdict <> 'busy' then
                v_block := v_block || v_task.result_id;
                v_block_on := v_block_on || v_verdict;
                v_given_up := v_given_up || case when v_verdict like 'l:%' then 'c:' || v_task.concurrency_key
                                                 else 'l:' || v_task.lock_key end;
            end if;
        end if;
    end loop;
    some_cannot_start := v_locked > cardinality(ids);
    written := cardinality(v_block || v_relabel || v_ending);
    busy := array(select u.key from unnest(v_block_on) as u (key) group by u.key having count(*) >= 8);
    more := more or busy <> '{}';
    more := more or v_metered > cardinality(array_remove(buckets, null));

    if cardinality(v_block) > 0 then
        update task_runs t set blocked_on = u.blocked_on, revision = t.revision + 1
        from unnest(v_block, v_block_on) as u (id, blocked_on)
        where t.result_id = any (array[u.id]);
        perform _reproq_block_backlog(b.key, 2000, p_seen || seen)
        from unnest(busy) as b (key);
        -- A task that is blocked on one key is no longer first for its other one: the next may be.
        select coalesce(sum(_reproq_unblock(g.key, 1)), 0) > 0 or more into more
        from (select distinct u.key from unnest(v_given_up) as u (key) where length(u.key) > 2) g;
    end if;
    if cardinality(v_relabel) > 0 then
        update task_runs t set limit_key = 'task:' || t.task_path, revision = t.revision + 1 where t.result_id = any (v_relabel);
    end if;
    if cardinality(v_ending) > 0 then
        perform _reproq_finish(v_ending, null, v_errors);
        more := true; -- what waited for their keys
    end if;
end
$$;

revoke execute on function _reproq_claim_pass(text[], integer, integer, integer, timestamptz, double precision, jsonb, bigint[], text[], text[], text[], integer[], integer, text[], bigint, bigint, text, uuid) from public;
comment on function _reproq_claim_pass(text[], integer, integer, integer, timestamptz, double precision, jsonb, bigint[], text[], text[], text[], integer[], integer, text[], bigint, bigint, text, uuid) is
    'One pass of a claim over the next candidates: start, block, relabel or end each. @0.1.0';
