create or replace function _reproq_duration(p_value jsonb) returns interval
language plpgsql stable parallel safe
as $$
-- A JSON value as a duration from 0 to 100 years: a number of seconds, or text such as "5 minutes"; null when it is
-- none. What PostgreSQL cannot read is class 22.
declare
    v_duration interval;
begin
    if jsonb_typeof(p_value) = 'number' and (p_value #>> '{}')::numeric between 0 and 3153600000 then
        v_duration := make_interval(secs => (p_value #>> '{}')::double precision);
    elsif jsonb_typeof(p_value) = 'string' then
        v_duration := (p_value #>> '{}')::interval;
    end if;
    return case when v_duration between interval '0' and interval '100 years' then v_duration end;
exception when data_exception then
    return null;
end
$$;

revoke execute on function _reproq_duration(jsonb) from public;
comment on function _reproq_duration(jsonb) is 'A JSON value as a duration: seconds, or the text of an interval; null when it is none. @0.1.0';
