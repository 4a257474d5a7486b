create or replace function reproq_schedules_due(p_limit integer default 100)
returns table (name text, cron_expr text, time_zone text, since timestamptz, now timestamptz)
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
#variable_conflict use_column
-- Schedules that a beat must look at: due, or not planned since they were written. The beat computes the
-- occurrences of cron_expr after since and up to now, and the first one after now, and passes them to
-- reproq_schedule_fire. since: the last run, else when the schedule was made. Takes no lock, writes nothing.
declare
    v_now timestamptz := reproq_now();
begin
    return query
    select p.name, p.cron_expr, p.time_zone, coalesce(p.last_run_at, p.created_at), v_now
    from periodic_tasks p
    where p.enabled and (p.next_run_at <= v_now or not p.planned)
    order by p.next_run_at, p.name
    limit p_limit;
end
$$;

revoke execute on function reproq_schedules_due(integer) from public;
comment on function reproq_schedules_due(integer) is 'Schedules that a beat must plan or run now. @v1';
