create or replace function _reproq_check_claim(
    p_function text, p_worker_id text, p_queues text[], p_limit integer, p_lease interval,
    p_aging_factor double precision, p_hint jsonb
) returns void
language plpgsql stable parallel safe
as $$
-- The arguments of reproq_claim and of functions that share some of them. Raises RQ001 that names the function,
-- the argument and the remedy.
begin
    if p_worker_id is null or p_worker_id = '' or octet_length(p_worker_id) > 512 then
        raise exception '%: p_worker_id must have 1 to 512 bytes', p_function
            using errcode = 'RQ001', hint = 'Pass a name for the worker, for example host and process id.';
    elsif p_queues is null or cardinality(p_queues) = 0 or array_position(p_queues, null) is not null then
        raise exception '%: p_queues must name at least one queue, and none may be null', p_function
            using errcode = 'RQ001', hint = 'Pass for example array[''default''].';
    elsif p_limit is null or p_limit < 1 or p_limit > 10000 then
        raise exception '%: p_limit must be from 1 to 10000, not %', p_function, coalesce(p_limit::text, 'null')
            using errcode = 'RQ001', hint = 'Pass the number of tasks that can start now.';
    elsif p_lease is null or p_lease < interval '1 millisecond' or p_lease > interval '30 days' then
        raise exception '%: p_lease must be from 1 millisecond to 30 days, not %', p_function, coalesce(p_lease::text, 'null')
            using errcode = 'RQ001', hint = 'Pass for example interval ''300 s''.';
    elsif p_aging_factor is null or p_aging_factor < 0 or p_aging_factor = 'NaN'
          or p_aging_factor > 0 and p_aging_factor < 0.001 then
        raise exception '%: p_aging_factor must be 0 (off) or at least 0.001 seconds, not %', p_function, coalesce(p_aging_factor::text, 'null')
            using errcode = 'RQ001', hint = 'Pass 60, or 0 to order by priority alone.';
    elsif jsonb_typeof(p_hint) <> 'array' then
        raise exception '%: p_hint must be an array of streams', p_function
            using errcode = 'RQ001', hint = 'Pass null to look at all streams.';
    elsif exists (
        select from jsonb_array_elements(p_hint) as h (stream)
        where jsonb_typeof(h.stream) <> 'object' or not _reproq_is_instant(h.stream -> 'since')
           or not _reproq_is_integer(h.stream -> 'priority', -2147483648, 2147483647))
    then
        raise exception '%: each element of p_hint must be an object with a priority of 32 bits and an instant as since', p_function
            using errcode = 'RQ001', hint = 'Pass null to look at all streams.';
    end if;
end
$$;

revoke execute on function _reproq_check_claim(text, text, text[], integer, interval, double precision, jsonb) from public;
comment on function _reproq_check_claim(text, text, text[], integer, interval, double precision, jsonb) is
    'Raises RQ001 on arguments that reproq_claim cannot work with. @0.1.0';
