create or replace function _reproq_schedule_made() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- Before a schedule is inserted: its occurrences count from now, or from the run it brings along, by this database's
-- clock, not the writer's; and a beat has to plan it.
begin
    if new.last_run_at is null then
        new.created_at := reproq_now();
    else
        new.last_run_at := least(new.last_run_at, reproq_now());
    end if;
    new.planned := false;
    return new;
end
$$;

revoke execute on function _reproq_schedule_made() from public;
comment on function _reproq_schedule_made() is 'Trigger: a new schedule counts from now and has to be planned. @0.1.0';
