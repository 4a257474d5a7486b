create or replace function reproq_now() returns timestamptz
language sql volatile parallel safe
as $$
-- The one clock: database time, read when called (not the start of the transaction).
-- Tests replace this function inside a transaction that they roll back.
select clock_timestamp()
$$;

revoke execute on function reproq_now() from public;
comment on function reproq_now() is 'Database time at the moment of the call; every function reads its clock here, once. @0.1.0';
