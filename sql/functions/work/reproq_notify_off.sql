create or replace function reproq_notify_off(p_queues text[]) returns void
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- Takes one reproq_notify_on of the same queues in this session back: the worker claims again soon by itself, and
-- producers need not notify for it. Warns when there was none.
begin
    perform pg_advisory_unlock_shared(n.number)
    from (select distinct _reproq_wait_lock(q.name) as number from unnest(p_queues) as q (name)) n;
end
$$;

revoke execute on function reproq_notify_off(text[]) from public;
comment on function reproq_notify_off(text[]) is 'Takes reproq_notify_on of the same queues back: this session needs no notification. @0.1.0';
