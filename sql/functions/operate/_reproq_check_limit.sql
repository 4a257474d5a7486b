create or replace function _reproq_check_limit(p_key text, p_rate double precision, p_burst integer) returns void
language plpgsql immutable parallel safe
as $$
-- The arguments of reproq_limit_set. Raises RQ001 that names the argument and the remedy.
begin
    if p_key is null or p_key !~ '^(global|(task|queue):.+)$' or octet_length(p_key) > 1024 then
        raise exception 'reproq_limit_set: p_key must be global, queue:<name> or task:<path>, not %',
            coalesce(quote_literal(left(p_key, 60)), 'null')
            using errcode = 'RQ001', hint = 'Pass for example ''task:app.tasks.send''.';
    elsif p_rate is null or p_rate < 0 or p_rate > 1000000 or p_rate = 'NaN' then
        raise exception 'reproq_limit_set: p_rate must be from 0 to 1000000 tokens a second, not %', coalesce(p_rate::text, 'null')
            using errcode = 'RQ001', hint = 'Pass for example 5, or 0.1 for one every ten seconds; 0 switches the limit off.';
    elsif p_rate > 0 and p_rate < 0.000001 then
        raise exception 'reproq_limit_set: p_rate must be 0 or at least 0.000001, not %', p_rate
            using errcode = 'RQ001', hint = 'Pause the queue to stop it.';
    elsif p_burst is null or p_burst < 1 or p_burst > 1000000 then
        raise exception 'reproq_limit_set: p_burst must be from 1 to 1000000, not %', coalesce(p_burst::text, 'null')
            using errcode = 'RQ001', hint = 'Pass how many tasks may start at once, for example 10.';
    end if;
end
$$;

revoke execute on function _reproq_check_limit(text, double precision, integer) from public;
comment on function _reproq_check_limit(text, double precision, integer) is
    'Raises RQ001 on arguments that reproq_limit_set cannot work with. @0.1.0';
