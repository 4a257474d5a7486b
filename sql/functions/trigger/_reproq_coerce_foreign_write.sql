create or replace function _reproq_coerce_foreign_write() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- Before a task is inserted, or updated into a state that its columns do not fit: rows that other programs
-- (Django, a Go worker, psql) write get what our functions write themselves. Never raises.
--   new           enqueued now at the latest, and WAITING since now: the writer's clock may be wrong, and what is to
--                 run later says so in run_after
--   RUNNING       a lease and a token; a new token when the holder changed. Its keys' locks are tried, so that a claim
--                 of ours takes a key for busy before the row that has it is committed
--   not RUNNING   no lease, no token, no slot
--   READY         no end; attempts from 0 when they were used up; not blocked once its keys, limit, time or stream
--                 changed; after an end (a retry) no cancel request and no expiry that has passed
--   final         an end
declare
    v_now timestamptz := reproq_now();
begin
    if tg_op = 'INSERT' then
        new.enqueued_at := least(new.enqueued_at, v_now);
        new.updated_at := case when new.status = 'WAITING' then v_now else new.updated_at end;
    end if;
    if new.status = 'RUNNING' then
        if new.lease_token is null
           or tg_op = 'UPDATE' and new.lease_token = old.lease_token and new.leased_by is distinct from old.leased_by then
            new.lease_token := gen_random_uuid();
            new.leased_incarnation := null;
        end if;
        perform pg_try_advisory_xact_lock(_reproq_key_hash(k.key))
        from (values ('l:' || nullif(new.lock_key, '')), ('c:' || nullif(new.concurrency_key, ''))) as k (key)
        where k.key is not null;
        new.leased_until := coalesce(new.leased_until, v_now + interval '5 minutes');
    else
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
    if new.status = 'READY' then
        if new.attempts >= new.max_attempts then
            new.attempts := 0;
        end if;
        if tg_op = 'UPDATE' and old.status in ('FAILED', 'CANCELLED') then
            new.cancel_requested := false;
            new.expires_at := case when new.expires_at > v_now then new.expires_at end;
        end if;
    end if;
    new.blocked_on := '';
    return new;
end
$$;

revoke execute on function _reproq_coerce_foreign_write() from public;
comment on function _reproq_coerce_foreign_write() is 'Trigger: makes the columns of rows that other programs write fit their status. @0.1.0';
