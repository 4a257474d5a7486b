create or replace function reproq_ring_on_schedule() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- After a schedule was written that a beat has to plan: tells the beats.
begin
    perform reproq_ring_control(jsonb_build_object('op', 'schedule', 'name', left(new.name, 200)));
    return null;
end
$$;

revoke execute on function reproq_ring_on_schedule() from public;
comment on function reproq_ring_on_schedule() is 'Trigger: tells the beats that a schedule was written. @v1';
