create or replace function _reproq_is_instant(p_value jsonb) returns boolean
language plpgsql stable parallel safe
as $$
-- Whether a JSON value is absent, null, or text that reads as an instant which every client can hold. What PostgreSQL
-- cannot read (no date, no such day, no such time zone) is class 22.
begin
    return case jsonb_typeof(coalesce(p_value, 'null'))
        when 'null' then true
        when 'string' then (p_value #>> '{}')::timestamptz between '0001-01-02 00:00+00' and '9999-12-30 00:00+00'
        else false end;
exception when data_exception then
    return false;
end
$$;

revoke execute on function _reproq_is_instant(jsonb) from public;
comment on function _reproq_is_instant(jsonb) is 'Whether a JSON value is absent or reads as an instant. @0.1.0';
