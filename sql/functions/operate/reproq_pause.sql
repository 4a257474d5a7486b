create or replace function reproq_pause(p_queue_name text, p_reason text default null) returns void
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
-- No task of this queue is claimed from the commit on; claims in flight may finish, running tasks go on.
-- Pausing a paused queue changes only the reason, if one is given. Raises RQ001 on a name that no queue can have.
-- Locks and writes the queue's row of reproq_queue_controls; its trigger notifies the workers. Writes the audit log.
begin
    if p_queue_name is null or p_queue_name = '' or octet_length(p_queue_name) > 512 then
        raise exception 'reproq_pause: p_queue_name must have 1 to 512 bytes'
            using errcode = 'RQ001', hint = 'Name the queue to pause.';
    end if;
    insert into reproq_queue_controls as c (queue_name, paused, paused_at, reason)
    values (p_queue_name, true, reproq_now(), p_reason)
    on conflict (queue_name) do update
    set paused = true, updated_at = excluded.paused_at,
        reason = coalesce(excluded.reason, case when c.paused then c.reason end),
        paused_at = case when c.paused then c.paused_at else excluded.paused_at end;
    perform _reproq_write_audit('pause', jsonb_build_object('queue_name', p_queue_name, 'reason', p_reason));
end
$$;

revoke execute on function reproq_pause(text, text) from public;
comment on function reproq_pause(text, text) is 'Stops claims from a queue until reproq_resume. @0.1.0';
