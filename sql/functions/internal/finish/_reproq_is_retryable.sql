create or replace function reproq_is_curable(p_error jsonb) returns boolean
language sql immutable parallel safe
as $$
-- Whether another attempt could end better. These kinds say that it cannot.
select coalesce(p_error ->> 'kind', 'app_error') not in (
    'cancelled', 'expired', 'invalid_spec', 'invalid_result', 'payload_too_large', 'security_violation',
    'workflow_failed', 'parent_failed')
$$;

revoke execute on function reproq_is_curable(jsonb) from public;
comment on function reproq_is_curable(jsonb) is 'Whether an error of this kind may be retried. @v1';
