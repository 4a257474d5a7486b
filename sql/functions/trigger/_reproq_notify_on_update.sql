create or replace function _reproq_notify_on_update() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set enable_nestloop = off set enable_hashjoin = on set jit = off
as $$
-- After tasks were updated: one notification per queue in which one became claimable (READY, unblocked, moved to
-- another stream, due earlier), and one for each running task of which the cancel is now requested.
-- Hash joins only: the callers' settings would compare each row with each.
begin
    if exists (select from written w where w.status = 'READY' and w.blocked_on = '') then
        perform _reproq_notify(n.queue_name)
        from (
            select distinct w.queue_name
            from written w
            join replaced r on r.result_id = w.result_id
            where w.status = 'READY' and w.blocked_on = ''
              and (r.status <> 'READY' or r.blocked_on <> ''
                   or (r.queue_name, r.limit_key, r.priority) <> (w.queue_name, w.limit_key, w.priority)
                   or greatest(w.enqueued_at, w.run_after) < greatest(r.enqueued_at, r.run_after))) n;
    end if;
    if exists (select from written w where w.status = 'RUNNING' and w.cancel_requested) then
        perform _reproq_notify_control(jsonb_build_object('op', 'cancel', 'id', w.result_id))
        from written w
        join replaced r on r.result_id = w.result_id
        where w.status = 'RUNNING' and w.cancel_requested and not r.cancel_requested;
    end if;
    return null;
end
$$;

revoke execute on function _reproq_notify_on_update() from public;
comment on function _reproq_notify_on_update() is 'Trigger: notifies the workers of tasks that became claimable and of requested cancels. @0.1.0';
