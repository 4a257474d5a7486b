create or replace function _reproq_is_instant(p_value jsonb) returns boolean
language plpgsql stable parallel safe
as $$
-- Whether a JSON value is absent, null, or text that names an instant which every client can hold: date, time and time
-- zone. Without a zone the session's would be guessed. Most are told by their form; the rest PostgreSQL must read,
-- and what it cannot (no such day, no such zone) is class 22.
begin
    if jsonb_typeof(coalesce(p_value, 'null')) = 'null' then
        return true;
    elsif jsonb_typeof(p_value) <> 'string' then
        return false;
    elsif p_value #>> '{}' ~ '^[12]\d{3}-(0[1-9]|1[0-2])-([01][1-9]|10|2[0-8])[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d([.]\d{1,6})?)?(Z|[+-](0\d|1[0-4])(:?[0-5]\d)?)$' then
        return true;
    elsif p_value #>> '{}' !~ '^\d{4}-\d\d?-\d\d?([T ]| +)\d\d?:\d\d(:\d\d([.]\d+)?)? ?(Z|[+-]\d\d?(:?\d\d){0,2}|[A-Za-z]{3,5}|[A-Za-z_]+/[A-Za-z0-9_/+-]+)$' then
        return false;
    end if;
    begin
        return (p_value #>> '{}')::timestamptz between '0001-01-02 00:00+00' and '9999-12-30 00:00+00';
    exception when data_exception then
        return false;
    end;
end
$$;

revoke execute on function _reproq_is_instant(jsonb) from public;
comment on function _reproq_is_instant(jsonb) is 'Whether a JSON value is absent or an instant with its time zone. @0.1.0';
