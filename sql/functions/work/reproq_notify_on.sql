create or replace function reproq_notify_on(p_queues text[]) returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
-- From now on producers notify of tasks in these queues, until reproq_notify_off or the end of this session. For the
-- session that LISTENs, after LISTEN. Returns the id of its own transaction: older transactions that are still open may
-- commit tasks without a notification, because they looked before. So call reproq_open_transactions with it, and claim
-- once more after each of those has ended.
-- Locks: session-level, shared, of each queue (_reproq_wait_lock); each call counts. Raises RQ001 on null.
begin
    if p_queues is null or array_position(p_queues, null) is not null then
        raise exception 'reproq_notify_on: p_queues must be queue names, none of them null' using errcode = 'RQ001';
    end if;
    perform pg_advisory_lock_shared(n.number)
    from (select distinct _reproq_wait_lock(q.name) as number from unnest(p_queues) as q (name)) n;
    return pg_current_xact_id()::text::bigint;  -- made now: those that looked before have theirs, and it is smaller
end
$$;

revoke execute on function reproq_notify_on(text[]) from public;
comment on function reproq_notify_on(text[]) is
    'From now on producers notify this session of tasks in these queues; what to pass to reproq_open_transactions. @0.1.0';
