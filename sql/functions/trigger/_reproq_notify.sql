create or replace function _reproq_notify(p_queue_name text) returns void
language plpgsql volatile parallel unsafe
as $$
-- NOTIFY reproq_ready (in another schema than public: _reproq_channel) at commit, once per queue and transaction.
-- Payload: the queue, or empty (any queue) when its name is longer than 200 bytes. Does nothing while the setting
-- reproq.notify is off, and while the server's notification queue is more than half full: a full queue would fail the
-- caller's transaction. A notification is a hint and carries no authority: a worker that misses it polls.
begin
    if coalesce(current_setting('reproq.notify', true), '') <> 'off' and pg_notification_queue_usage() <= 0.5 then
        perform pg_notify(_reproq_channel('reproq_ready'), case when octet_length(p_queue_name) <= 200 then p_queue_name else '' end);
    end if;
end
$$;

revoke execute on function _reproq_notify(text) from public;
comment on function _reproq_notify(text) is 'Wakes the workers of a queue at commit. @0.1.0';
