create or replace function reproq_ring_on_insert() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- After tasks were inserted: rings once per queue with a READY one, due now (claim it) or later (sleepers
-- shorten their timer), parked ones too.
begin
    perform reproq_ring(n.queue_name)
    from (select distinct w.queue_name from written w where w.status = 'READY') n;
    return null;
end
$$;

revoke execute on function reproq_ring_on_insert() from public;
comment on function reproq_ring_on_insert() is 'Trigger: rings for inserted tasks, once per statement and queue. @v1';
