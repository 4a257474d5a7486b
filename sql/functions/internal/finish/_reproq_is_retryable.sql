create or replace function _reproq_is_retryable(p_error jsonb) returns boolean
language sql immutable parallel safe
as $$
-- Whether another attempt could succeed. With these kinds of error it cannot.
select coalesce(p_error ->> 'kind', 'app_error') not in (
    'cancelled', 'expired', 'invalid_spec', 'invalid_result', 'payload_too_large', 'security_violation',
    'workflow_failed', 'parent_failed', 'discarded', 'snooze_limit')
$$;

revoke execute on function _reproq_is_retryable(jsonb) from public;
comment on function _reproq_is_retryable(jsonb) is 'Whether an error of this kind may be retried. @0.1.0';
