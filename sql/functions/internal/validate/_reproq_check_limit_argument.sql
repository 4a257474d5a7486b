create or replace function _reproq_check_limit_argument(p_function text, p_limit integer) returns void
language plpgsql immutable parallel safe
as $$
-- Raises RQ001 unless p_limit is null or at least 1.
begin
    if p_limit < 1 then
        raise exception '%: p_limit must be at least 1, not %', p_function, p_limit
            using errcode = 'RQ001', hint = 'Leave it out for the default.';
    end if;
end
$$;

revoke execute on function _reproq_check_limit_argument(text, integer) from public;
comment on function _reproq_check_limit_argument(text, integer) is 'Raises RQ001 on a limit below 1. @0.1.0';
