create or replace function _reproq_notify_control(p_message jsonb) returns void
language plpgsql volatile parallel unsafe
as $$
-- NOTIFY reproq_control at commit, for what an operator did: {"op": "cancel", "id": 1} or
-- {"op": "pause"|"resume", "queue": "q"} (no queue when its name is long). Does nothing when _reproq_notify does not.
begin
    if coalesce(current_setting('reproq.notify', true), '') <> 'off' and pg_notification_queue_usage() <= 0.5 then
        perform pg_notify(_reproq_channel('reproq_control'), case when octet_length(p_message::text) <= 1000
            then p_message else p_message - 'queue' end::text);
    end if;
end
$$;

revoke execute on function _reproq_notify_control(jsonb) from public;
comment on function _reproq_notify_control(jsonb) is 'Notifies the workers of a cancel, pause or resume at commit. @0.1.0';
