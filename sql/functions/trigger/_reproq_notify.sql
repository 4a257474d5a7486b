create or replace function _reproq_notify(p_queue_name text) returns void
language plpgsql volatile parallel unsafe
as $$
-- NOTIFY reproq_ready (in another schema than public: _reproq_channel) at commit, once per queue and transaction, if a
-- worker of the queue may be waiting (reproq_notify_on): commits with NOTIFY are made one at a time in all the server.
-- Callers have written before they call, so that the transaction has its id when it looks (sql/README.md, "Waking").
-- Payload: the queue, or empty when its name is longer than 200 bytes. Empty stands for any queue, and is always sent.
-- reproq.notify = always notifies also when no worker waits, for other programs that LISTEN; off never does. Nor is
-- one sent while the server's notification queue is more than half full: a full queue would fail the caller's
-- transaction. A notification is a hint and carries no authority: a worker that misses it polls.
-- Locks: tries the session-level lock of waiting workers, and returns it at once, in one expression that nothing interrupts.
declare
    v_mode constant text := coalesce(current_setting('reproq.notify', true), '');
    v_lock constant bigint := _reproq_wait_lock(p_queue_name);
begin
    if v_mode = 'off' then
        return;
    end if;
    if v_mode <> 'always' and p_queue_name <> ''
       and (case when pg_try_advisory_lock(v_lock) then pg_advisory_unlock(v_lock) else false end) then
        return;
    end if;
    if pg_notification_queue_usage() <= 0.5 then
        perform pg_notify(_reproq_channel('reproq_ready'), case when octet_length(p_queue_name) <= 200 then p_queue_name else '' end);
    end if;
end
$$;

revoke execute on function _reproq_notify(text) from public;
comment on function _reproq_notify(text) is 'Wakes the workers of a queue at commit, if one may be waiting. @0.1.0';
