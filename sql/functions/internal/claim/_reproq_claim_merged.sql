create or replace function _reproq_claim_merged(
    p_worker_id text, p_incarnation uuid, p_queues text[], p_limit integer, p_aging_factor double precision, p_hint jsonb,
    p_now timestamptz, out ids bigint[], out slots integer[]
)
language plpgsql volatile parallel unsafe
as $$
-- The tasks that a claim takes, in order, with the concurrency slot of each, when streams have to be merged, keys
-- admitted or tokens paid. All are locked and may start.
-- Works in passes: look (no locks), lock what it takes (skip locked), decide keys, until full, dry, 1,000 beyond p_limit
-- met, or 200 other tasks written (blocked, relabelled, ended) and no backlog of a busy key met in the last pass: the
-- next one steps over such a backlog. A pass after one that met tasks which cannot start locks four times as many; after
-- one that met rows of other sessions it looks eight times as far. A dry claim looks for blocked tasks with a free key.
-- One that stopped because of what it wrote notifies, so that workers claim again at once.
-- The specs of what it takes have 8 MiB at most, or one has the largest size that reproq.max_spec_bytes allows.
-- Locks: tasks (skip), keys (try), last buckets (waiting).
-- Writes: tasks of busy keys blocked, and unblocked when another claim took the token meanwhile; wrong labels
-- corrected; expired and cancelled tasks ended.
declare
    v_seen bigint[] := '{}';
    v_ids bigint[] := '{}';
    v_buckets text[] := '{}';
    v_locks text[] := '{}';
    v_keys text[] := '{}';
    v_slots integer[] := '{}';
    v_given text[] := '{}';
    v_keyed integer := 0;
    v_busy text[] := '{}';
    v_written integer := 0;
    v_paid integer[];
    v_unpaid bigint[];
    v_pass record;
    v_bytes bigint := 0;
    v_max_bytes constant bigint := greatest(8388608, _reproq_max_spec_bytes());
    v_lock integer := p_limit;
    v_look integer := p_limit;
    v_swept boolean := false;
begin
    loop
        select * into v_pass
        from _reproq_claim_pass(p_queues, p_limit - cardinality(v_ids), v_lock, v_look, p_now, p_aging_factor, p_hint,
                               v_seen, v_buckets, v_locks, v_keys, v_slots, v_keyed, v_busy,
                               v_bytes, v_max_bytes, p_worker_id, p_incarnation);
        v_seen := v_seen || v_pass.seen;
        v_ids := v_ids || v_pass.ids;
        v_buckets := v_buckets || v_pass.buckets;
        v_locks := v_locks || v_pass.locks;
        v_keys := v_keys || v_pass.keys;
        v_slots := v_slots || v_pass.slots;
        v_given := v_given || array(select 'l:' || l from unnest(v_pass.locks) l)
                           || array(select 'c:' || k from unnest(v_pass.keys) k);
        v_keyed := v_keyed + v_pass.keyed;
        v_busy := v_busy || v_pass.busy;
        v_bytes := v_bytes + v_pass.bytes;
        v_written := v_written + v_pass.written;
        exit when v_pass.is_full or cardinality(v_ids) >= p_limit or v_written >= 200 and v_pass.busy = '{}'
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
                     order by hashtextextended(t.blocked_on, 0) limit 1) p)
    then
        perform _reproq_unblock_free(4, v_given);
    end if;
    if array_remove(v_buckets, null) <> '{}' then
        begin
            v_paid := array(select p.place from _reproq_take_tokens(v_buckets, p_now) p);
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
    ids := v_ids;
    slots := v_slots;
    if v_written >= 200 and cardinality(v_ids) < p_limit then
        -- There is more behind; what was written here will not be met again.
        perform _reproq_notify(q.name) from unnest(p_queues) as q (name);
    end if;
end
$$;

revoke execute on function _reproq_claim_merged(text, uuid, text[], integer, double precision, jsonb, timestamptz) from public;
comment on function _reproq_claim_merged(text, uuid, text[], integer, double precision, jsonb, timestamptz) is
    'The tasks that a claim takes when streams have to be merged, keys admitted or tokens paid. @0.1.0';
