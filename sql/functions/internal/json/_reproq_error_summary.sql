create or replace function _reproq_error_summary(p_error jsonb) returns text
language sql immutable parallel safe
as $$
-- last_error: "kind: message" on one line, at most 1,000 characters.
select left(regexp_replace(
    coalesce(nullif(left(p_error ->> 'kind', 64), ''), 'app_error') || ': '
        || left(coalesce(p_error ->> 'message', ''), 8192),
    '[[:space:]]+', ' ', 'g'), 1000)
$$;

revoke execute on function _reproq_error_summary(jsonb) from public;
comment on function _reproq_error_summary(jsonb) is 'One line about an error: kind and message. @0.1.0';
