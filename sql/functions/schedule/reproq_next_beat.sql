create or replace function reproq_next_beat(p_skip text[] default '{}') returns interval
language plpgsql stable parallel unsafe security definer
set search_path from current
as $$
-- Time until a beat must look at schedules again, those in p_skip left out: 0 = now; null = nothing is scheduled.
-- Takes no lock.
begin
    return (
        select min(case when p.planned then greatest(interval '0', p.next_run_at - reproq_now()) else interval '0' end)
        from periodic_tasks p
        where p.enabled and (not p.planned or p.next_run_at < '9999-12-30 00:00+00')
          and p.name <> all (coalesce(p_skip, '{}')));
end
$$;

revoke execute on function reproq_next_beat(text[]) from public;
comment on function reproq_next_beat(text[]) is 'Time until the next schedule is due; null when there is none. @0.1.0';
