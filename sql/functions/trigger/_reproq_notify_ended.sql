create or replace function _reproq_notify_ended(p_result_ids bigint[]) returns void
language plpgsql volatile parallel unsafe
as $$
-- NOTIFY reproq_ended at commit, once per task, for clients that wait for these ends (task_runs.notify_end). Not while
-- reproq.notify is off or the server's notification queue is more than half full: as _reproq_notify.
begin
    if coalesce(current_setting('reproq.notify', true), '') <> 'off' and pg_notification_queue_usage() <= 0.5 then
        perform pg_notify(_reproq_channel('reproq_ended'), u.id::text) from unnest(p_result_ids) as u (id);
    end if;
end
$$;

revoke execute on function _reproq_notify_ended(bigint[]) from public;
comment on function _reproq_notify_ended(bigint[]) is 'Wakes the clients that wait for the ends of these tasks, at commit. @0.1.0';
