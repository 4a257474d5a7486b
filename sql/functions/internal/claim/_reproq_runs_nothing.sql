create or replace function _reproq_runs_nothing(p_worker_id text, p_incarnation uuid) returns boolean
language plpgsql stable parallel unsafe
as $$
-- Whether this start of a worker holds no lease. Reads running tasks until it finds one; asked only for quarantined
-- tasks.
begin
    return not exists (
        select from task_runs t
        where t.leased_until is not null and t.leased_by = p_worker_id
          and t.leased_incarnation is not distinct from p_incarnation);
end
$$;

revoke execute on function _reproq_runs_nothing(text, uuid) from public;
comment on function _reproq_runs_nothing(text, uuid) is 'Whether a worker holds no lease. @0.1.0';
