create or replace function _reproq_effective_priority(
    p_priority integer, p_ready_since timestamptz, p_now timestamptz, p_aging_factor double precision
) returns double precision
language sql immutable parallel safe
as $$
-- Priority plus one for each p_aging_factor seconds that the task has been ready; factor 0 = no aging.
select case when p_aging_factor > 0
    then p_priority + extract(epoch from p_now - p_ready_since)::double precision / p_aging_factor
    else p_priority end
$$;

revoke execute on function _reproq_effective_priority(integer, timestamptz, timestamptz, double precision) from public;
comment on function _reproq_effective_priority(integer, timestamptz, timestamptz, double precision) is
    'What the claim orders by: priority, grown by the time a task has waited since it was ready. @0.1.0';
