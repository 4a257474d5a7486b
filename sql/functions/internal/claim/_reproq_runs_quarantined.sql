create or replace function _reproq_runs_quarantined(p_worker_id text, p_incarnation uuid) returns boolean
language plpgsql stable parallel unsafe
as $$
-- Whether this start of a worker runs a task that lost its lease twice or more, and so takes nothing else.
begin
    return exists (
        select from task_runs t
        where t.leased_by = p_worker_id and t.leased_incarnation is not distinct from p_incarnation
          and t.lost_count >= 2 and t.leased_until is not null);
end
$$;

revoke execute on function _reproq_runs_quarantined(text, uuid) from public;
comment on function _reproq_runs_quarantined(text, uuid) is 'Whether a worker runs a task that must run alone. @0.1.0';
