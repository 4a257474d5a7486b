create or replace function reproq_schedules_due(p_limit integer default 100, p_skip text[] default '{}')
returns table (name text, cron_expr text, time_zone text, since timestamptz, now timestamptz)
language plpgsql stable parallel unsafe security definer
set search_path from current
as $$
#variable_conflict use_column
-- Schedules that a beat must look at: due, or not planned since they were written; p_skip names those it cannot
-- read. The beat computes the occurrences of cron_expr after since and up to now, and the first one after now, and
-- passes them to reproq_schedule_fire. since: _reproq_schedule_since. Raises RQ001 on a bad p_limit.
-- Takes no lock, writes nothing.
declare
    v_now timestamptz := reproq_now();
begin
    perform _reproq_check_limit_argument('reproq_schedules_due', p_limit);
    return query
    select p.name, p.cron_expr, p.time_zone, _reproq_schedule_since(p), v_now
    from periodic_tasks p
    where p.enabled and (p.next_run_at <= v_now or not p.planned) and p.name <> all (coalesce(p_skip, '{}'))
    order by p.next_run_at, p.name
    limit p_limit;
end
$$;

revoke execute on function reproq_schedules_due(integer, text[]) from public;
comment on function reproq_schedules_due(integer, text[]) is 'Schedules that a beat must plan or run now. @0.1.0';
