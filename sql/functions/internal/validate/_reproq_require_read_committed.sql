create or replace function _reproq_require_read_committed() returns void
language plpgsql stable parallel safe
as $$
-- Keys and fences are decided by "lock, then look in a new statement", which needs a new
-- snapshot for each statement. Raises RQ003 under any other isolation level.
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'reproq functions that move tasks need isolation level READ COMMITTED, not %',
            upper(current_setting('transaction_isolation'))
            using errcode = 'RQ003',
                  hint = 'Begin the transaction with: begin isolation level read committed';
    end if;
end
$$;

revoke execute on function _reproq_require_read_committed() from public;
comment on function _reproq_require_read_committed() is 'Raises RQ003 unless the transaction runs at READ COMMITTED. @0.1.0';
