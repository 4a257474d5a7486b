create or replace function _reproq_notify_on_schedule() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- After a schedule was written that a beat has to plan: notifies the beats.
begin
    perform _reproq_notify_control(jsonb_build_object('op', 'schedule', 'name', left(new.name, 200)));
    return null;
end
$$;

revoke execute on function _reproq_notify_on_schedule() from public;
comment on function _reproq_notify_on_schedule() is 'Trigger: notifies the beats that a schedule was written. @0.1.0';
