create or replace function _reproq_notify_on_control() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- After a pause switch was written, by a function or directly: notifies the workers, and wakes those of a queue
-- that is resumed.
declare
    v_control reproq_queue_controls%rowtype := case when tg_op = 'DELETE' then old else new end;
    v_paused boolean := tg_op <> 'DELETE' and v_control.paused;
begin
    perform _reproq_notify_control(jsonb_build_object(
        'op', case when v_paused then 'pause' else 'resume' end, 'queue', v_control.queue_name));
    if not v_paused then
        perform _reproq_notify(v_control.queue_name);
    end if;
    return null;
end
$$;

revoke execute on function _reproq_notify_on_control() from public;
comment on function _reproq_notify_on_control() is 'Trigger: notifies the workers that a queue was paused or resumed. @0.1.0';
