create or replace function _reproq_notify_on_insert() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- After tasks were inserted: one notification per queue with a READY one, due now (claim it) or later (sleeping workers
-- shorten their timer), blocked ones too.
begin
    perform _reproq_notify(n.queue_name)
    from (select distinct w.queue_name from written w where w.status = 'READY') n;
    return null;
end
$$;

revoke execute on function _reproq_notify_on_insert() from public;
comment on function _reproq_notify_on_insert() is 'Trigger: notifies the workers of inserted tasks, once per statement and queue. @0.1.0';
