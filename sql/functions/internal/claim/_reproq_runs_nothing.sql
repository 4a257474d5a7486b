create or replace function _reproq_runs_nothing(p_worker_id text, p_incarnation uuid) returns boolean
language plpgsql stable parallel unsafe
as $$
-- Whether this start of a worker holds no lease. Asked only for quarantined tasks.
begin
    return not exists (
        select from (
            select t.leased_incarnation
            from task_runs t
            where t.leased_by between p_worker_id and p_worker_id and t.leased_until is not null
            order by t.leased_by, t.lost_count limit 1000) h
        where h.leased_incarnation is not distinct from p_incarnation);
end
$$;

revoke execute on function _reproq_runs_nothing(text, uuid) from public;
comment on function _reproq_runs_nothing(text, uuid) is 'Whether a worker holds no lease. @0.1.0';
