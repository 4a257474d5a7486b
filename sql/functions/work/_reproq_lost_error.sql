create or replace function _reproq_lost_error(p_task task_runs) returns jsonb
language sql immutable parallel safe
as $$
-- The error of an attempt with an expired lease: cancelled if that was asked for, else lease_expiry.
select case when p_task.cancel_requested
    then jsonb_build_object('kind', 'cancelled', 'message', 'cancelled while it ran; its worker is gone')
    else jsonb_build_object('kind', 'lease_expiry', 'message', 'the lease of worker '
        || coalesce(p_task.leased_by, '?') || ' expired: it died or lost its database') end
$$;

revoke execute on function _reproq_lost_error(task_runs) from public;
comment on function _reproq_lost_error(task_runs) is 'The error stored for an attempt with an expired lease. @0.1.0';
