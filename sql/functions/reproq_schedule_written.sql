create or replace function reproq_schedule_written() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- Before a planned schedule is changed by anybody but a beat: it must be planned anew. Missed runs count from
-- last_run_at, so no due run is lost; and from now on for one that was switched off and on again.
begin
    new.planned := false;
    if new.enabled and not old.enabled then
        new.last_run_at := reproq_now();
    end if;
    return new;
end
$$;

revoke execute on function reproq_schedule_written() from public;
comment on function reproq_schedule_written() is 'Trigger: a schedule that was changed must be planned anew. @v1';
