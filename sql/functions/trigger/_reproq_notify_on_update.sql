create or replace function reproq_ring_on_update() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
set enable_nestloop = off set enable_hashjoin = on set jit = off
as $$
-- After tasks were updated: rings once per queue in which one became claimable (READY, un-parked, moved to
-- another stream, due earlier), and tells workers of each running task whose cancel is now requested.
-- Hash joins only: the callers' settings would compare each row with each.
begin
    if exists (select from written w where w.status = 'READY' and w.parked_on = '') then
        perform reproq_ring(n.queue_name)
        from (
            select distinct w.queue_name
            from written w
            join replaced r on r.result_id = w.result_id
            where w.status = 'READY' and w.parked_on = ''
              and (r.status <> 'READY' or r.parked_on <> ''
                   or (r.queue_name, r.limit_key, r.priority) <> (w.queue_name, w.limit_key, w.priority)
                   or greatest(w.enqueued_at, w.run_after) < greatest(r.enqueued_at, r.run_after))) n;
    end if;
    if exists (select from written w where w.status = 'RUNNING' and w.cancel_requested) then
        perform reproq_ring_control(jsonb_build_object('op', 'cancel', 'id', w.result_id))
        from written w
        join replaced r on r.result_id = w.result_id
        where w.status = 'RUNNING' and w.cancel_requested and not r.cancel_requested;
    end if;
    return null;
end
$$;

revoke execute on function reproq_ring_on_update() from public;
comment on function reproq_ring_on_update() is 'Trigger: rings for tasks that became claimable or whose cancel is requested. @v1';
