create or replace function _reproq_is_integer(p_value jsonb, p_min bigint, p_max bigint) returns boolean
language sql immutable parallel safe
as $$
-- Whether a JSON value is absent, null, or a whole number in the range.
select case jsonb_typeof(coalesce(p_value, 'null'))
    when 'null' then true
    when 'number' then (p_value #>> '{}')::numeric between p_min and p_max
                       and (p_value #>> '{}')::numeric = trunc((p_value #>> '{}')::numeric)
    else false end
$$;

revoke execute on function _reproq_is_integer(jsonb, bigint, bigint) from public;
comment on function _reproq_is_integer(jsonb, bigint, bigint) is 'Whether a JSON value is absent or a whole number in a range. @0.1.0';
