create or replace function reproq_resume(p_queue_name text) returns void
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
-- Lets claims from this queue go on; a queue that is not paused stays as it is. Raises RQ001 on an empty name.
-- Locks and writes the queue's row of reproq_queue_controls; its trigger notifies the workers. Writes the audit log.
begin
    if coalesce(p_queue_name, '') = '' then
        raise exception 'reproq_resume: p_queue_name must not be empty'
            using errcode = 'RQ001', hint = 'Name the queue to resume.';
    end if;
    update reproq_queue_controls c
    set paused = false, paused_at = null, reason = null, updated_at = reproq_now()
    where c.queue_name = p_queue_name and c.paused;
    if found then
        perform _reproq_write_audit('resume', jsonb_build_object('queue_name', p_queue_name));
    end if;
end
$$;

revoke execute on function reproq_resume(text) from public;
comment on function reproq_resume(text) is 'Ends the pause of a queue. @0.1.0';
