create or replace function _reproq_backoff(p_spec jsonb, p_attempt integer, p_factor double precision = 1) returns interval
language plpgsql volatile parallel safe
as $$
-- How long a task waits before its next attempt: spec.exec.backoff_seconds (30) x 2^(attempt - 1)
-- x p_factor and up to a tenth more by chance, so that a group does not return at once; at most one hour.
-- A spec that says anything but a number >= 0 gets the 30. Rounded to microseconds: jsonb has numbers so small that
-- double precision refuses them, and a failure must be recorded with any spec.
declare
    v_base double precision := 30;
    v_asked numeric;
begin
    if jsonb_typeof(p_spec #> '{exec,backoff_seconds}') = 'number' then
        v_asked := (p_spec #>> '{exec,backoff_seconds}')::numeric;
        if v_asked >= 0 then
            v_base := round(least(v_asked, 3600), 6)::double precision;
        end if;
    end if;
    return make_interval(secs =>
        least(3600, v_base * p_factor * power(2, least(greatest(p_attempt, 1), 32) - 1) * (1 + random() / 10)));
end
$$;

revoke execute on function _reproq_backoff(jsonb, integer, double precision) from public;
comment on function _reproq_backoff(jsonb, integer, double precision) is
    'Time to wait before the attempt after p_attempt; exponential, capped at an hour, with jitter. @0.1.0';
