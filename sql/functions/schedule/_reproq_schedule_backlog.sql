create or replace function _reproq_schedule_backlog(p_name text) returns integer
language plpgsql stable parallel unsafe
as $$
-- How many runs of a schedule have not ended, counted among its latest 100 occurrences.
begin
    return (
        select count(*)::integer
        from (select o.result_id from periodic_occurrences o
              where o.name = p_name and o.result_id is not null
              order by o.scheduled_at desc limit 100) o
        join task_runs t on t.result_id = o.result_id
        where t.finished_at is null);
end
$$;

revoke execute on function _reproq_schedule_backlog(text) from public;
comment on function _reproq_schedule_backlog(text) is 'Runs of a schedule that have not ended. @0.1.0';
