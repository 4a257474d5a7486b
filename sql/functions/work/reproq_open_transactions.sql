create or replace function reproq_open_transactions(p_before bigint) returns integer
language sql volatile parallel unsafe security definer
set search_path from current
as $$
-- How many transactions of the server have written and not ended, prepared ones included, of those older than p_before,
-- which has ended. A claim made after this call finds what the others have committed.
select count(*)::integer
from pg_snapshot_xip(pg_current_snapshot()) as x (id)
where x.id::text::bigint < p_before
$$;

revoke execute on function reproq_open_transactions(bigint) from public;
comment on function reproq_open_transactions(bigint) is
    'Number of transactions older than this one that have written and not ended. @0.1.0';
