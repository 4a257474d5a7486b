create or replace function _reproq_coerce_foreign_write() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_material = off set jit = off
as $$
-- Before a row is written past our functions (by Django, a Go worker, a DBA): it gets what our functions write
-- themselves, or is refused. These triggers know such a write by its unchanged revision.
--   spec          as large as one that is enqueued may be
--   path          from spec_json; another one is refused: what is checked must be what is executed
--   new           enqueued now at the latest, and WAITING since now: the writer's clock may be wrong, and what is to
--                 run later says so in run_after. The label of its token bucket. Blocked behind a backlog of its key
--   RUNNING       a lease and a token; a new token when the holder changed. Its keys' locks are tried, so that a claim
--                 of ours sees the key as busy before the row that has it is committed
--   not RUNNING   no lease, no token, no slot
--   WAITING       the callback of a chord stays it until all members succeeded: a Go worker may have counted too many
--   READY         no end; counted from zero again when its attempts were used up; not blocked once its keys, limit,
--                 time or stream changed; after an end (a retry) no cancel request and no expiry that has passed
--   final         an end
-- Raises RQ002 for a spec or a path, 23514 (check_violation) for an unknown status, a slot below 1, a time that is not finite,
-- a name too long for an index. Locks: the keys of a row that becomes RUNNING (try).
declare
    v_now timestamptz := reproq_now();
    v_is_new constant boolean := tg_op = 'INSERT';
    v_problem text;
begin
    if v_is_new or new.spec_json is distinct from old.spec_json or new.task_path is distinct from old.task_path then
        if jsonb_typeof(new.spec_json) is distinct from 'object' then
            raise exception 'task_runs: spec_json must be an object'
                using errcode = 'RQ002', hint = 'Enqueue with reproq_enqueue.';
        end if;
        new.task_path := coalesce(nullif(new.task_path, ''), new.spec_json ->> 'task_path');
        if new.task_path is distinct from new.spec_json ->> 'task_path' then
            raise exception 'task_runs: task_path % is not the task_path of spec_json, %',
                quote_literal(left(new.task_path, 200)), coalesce(quote_literal(left(new.spec_json ->> 'task_path', 200)), 'null')
                using errcode = 'RQ002', hint = 'Leave task_path out; it is filled from spec_json.';
        end if;
        if octet_length(new.spec_json::text) > _reproq_max_spec_bytes() then
            raise exception 'task_runs: spec_json has % bytes, the limit is % (setting reproq.max_spec_bytes)',
                octet_length(new.spec_json::text), _reproq_max_spec_bytes()
                using errcode = 'RQ002', hint = 'Store large data elsewhere and pass its key or path in args.';
        end if;
    end if;

    if not v_is_new and old.status = 'WAITING' and new.status in ('READY', 'RUNNING') and exists (
            select from workflow_runs w
            where w.callback_result_id = new.result_id
              and (_reproq_workflow_state(w, v_now)).status <> 'WAITING_CALLBACK') then
        new.status := 'WAITING';
        new.wait_count := old.wait_count;
    end if;

    if new.status = 'RUNNING' then
        if new.lease_token is null
           or not v_is_new and new.lease_token = old.lease_token and new.leased_by is distinct from old.leased_by then
            new.lease_token := gen_random_uuid();
            new.leased_incarnation := null;
            perform pg_try_advisory_xact_lock(_reproq_key_hash(k.key))
            from (values ('l:' || nullif(new.lock_key, '')), ('c:' || nullif(new.concurrency_key, ''))) as k (key)
            where k.key is not null;
        end if;
        new.leased_until := coalesce(new.leased_until, v_now + interval '5 minutes');
    elsif num_nonnulls(new.leased_until, new.lease_token, new.concurrency_slot) > 0 then
        new.leased_until := null;
        new.leased_by := null;
        new.lease_token := null;
        new.leased_incarnation := null;
        new.concurrency_slot := null;
    end if;

    if new.status in ('SUCCESSFUL', 'FAILED', 'CANCELLED') then
        new.finished_at := coalesce(new.finished_at, v_now);
        new.failed_at := case when new.status = 'FAILED' then coalesce(new.failed_at, v_now) else new.failed_at end;
    else
        new.finished_at := null;
        new.failed_at := null;
    end if;

    if new.status = 'READY' and (v_is_new or old.status <> 'READY') then
        if new.attempts >= new.max_attempts then
            new.attempts := 0;
        end if;
        if not v_is_new and old.status in ('FAILED', 'CANCELLED') then
            new.cancel_requested := false;
            new.expires_at := case when new.expires_at > v_now then new.expires_at end;
        end if;
    end if;

    if v_is_new then
        new.enqueued_at := least(new.enqueued_at, v_now);
        new.updated_at := case when new.status = 'WAITING' then v_now else new.updated_at end;
        new.limit_key := coalesce((
            select r.key from rate_limits r
            where r.key = 'task:' || new.task_path), '');
        new.blocked_on := case when new.status = 'READY' and (new.lock_key <> '' or new.concurrency_key <> '')
            then _reproq_blocked_from_start(new.queue_name, new.limit_key, new.priority,
                greatest(new.enqueued_at, new.run_after), new.lock_key, new.concurrency_key, new.concurrency_limit, v_now)
            else '' end;
    elsif new.blocked_on <> '' and (new.status <> 'READY'
            or (new.queue_name, new.priority, new.enqueued_at, new.concurrency_limit)
               <> (old.queue_name, old.priority, old.enqueued_at, old.concurrency_limit)
            or (new.lock_key, new.concurrency_key, new.run_after)
               is distinct from (old.lock_key, old.concurrency_key, old.run_after)) then
        new.blocked_on := '';
    end if;

    v_problem := case
        when new.status not in ('READY', 'RUNNING', 'WAITING', 'SUCCESSFUL', 'FAILED', 'CANCELLED')
            then 'there is no status ' || quote_literal(left(new.status, 30))
        when new.concurrency_slot < 1 then 'concurrency_slot must be 1 or more'
        when not (isfinite(new.enqueued_at) and isfinite(coalesce(new.run_after, v_now))
                  and isfinite(coalesce(new.leased_until, v_now)) and isfinite(coalesce(new.expires_at, v_now)))
             or greatest(new.enqueued_at, new.run_after, new.leased_until, new.expires_at) > '9999-12-30 00:00+00'
             or least(new.enqueued_at, new.run_after, new.leased_until, new.expires_at) < '0001-01-02 00:00+00'
            then 'enqueued_at, run_after, leased_until and expires_at must lie between the years 1 and 9999'
        when not (isfinite(coalesce(new.failed_at, v_now)) and isfinite(coalesce(new.finished_at, v_now))
                  and isfinite(coalesce(new.started_at, v_now)) and isfinite(coalesce(new.last_attempted_at, v_now)))
            then 'failed_at, finished_at, started_at and last_attempted_at must be finite'
        when octet_length(new.queue_name) > 512 then 'queue_name must have at most 512 bytes'
        when octet_length(new.task_path) > 1024 then 'task_path must have at most 1024 bytes'
        end;
    if v_problem is not null then
        raise exception 'task_runs: %', v_problem using errcode = '23514', hint = 'Write through the reproq_ functions.';
    end if;
    return new;
end
$$;

revoke execute on function _reproq_coerce_foreign_write() from public;
comment on function _reproq_coerce_foreign_write() is
    'Trigger: makes the columns of a row that another program writes fit its status, or refuses the row. @0.1.0';
