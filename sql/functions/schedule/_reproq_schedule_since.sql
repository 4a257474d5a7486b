create or replace function _reproq_schedule_since(p_schedule periodic_tasks) returns timestamptz
language sql immutable parallel safe
as $$
-- From when on the occurrences of a schedule count: its last run, else when it was made. Kept within the years that
-- every client can read. A beat gets it from reproq_schedules_due and hands it back to reproq_schedule_fire.
select least(greatest(coalesce(p_schedule.last_run_at, p_schedule.created_at), '2000-01-01 00:00+00'), '9999-12-30 00:00+00')
$$;

revoke execute on function _reproq_schedule_since(periodic_tasks) from public;
comment on function _reproq_schedule_since(periodic_tasks) is 'From when on the occurrences of a schedule count. @0.1.0';
