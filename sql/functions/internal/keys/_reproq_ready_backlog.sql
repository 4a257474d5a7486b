create or replace function _reproq_ready_backlog(
    p_blocked_on text, p_queue_name text, p_limit_key text, p_priority integer, p_until timestamptz, p_max integer
) returns integer
language plpgsql stable parallel unsafe
as $$
-- How many unblocked tasks of a key (l:... or c:...) that are ready since p_until or before are in a stream;
-- counts up to p_max. Quarantined tasks (_reproq_candidates) do not count: they may wait for an idle worker, their key
-- may not.
-- "between x and x" and the order keep other indexes away (sql/README.md, "Plans").
declare
    v_digest bigint := hashtextextended(substr(p_blocked_on, 3), 0);
begin
    if p_blocked_on like 'l:%' then
        return (select count(*)::integer from (
            select from task_runs t
            where hashtextextended(t.lock_key, 0) between v_digest and v_digest and t.queue_name = p_queue_name
              and t.limit_key = p_limit_key and t.priority = p_priority
              and greatest(t.enqueued_at, t.run_after) <= p_until
              and t.status = 'READY' and t.blocked_on = '' and t.lock_key <> '' and t.lost_count < 2
            order by hashtextextended(t.lock_key, 0), t.queue_name, t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after)
            limit p_max) c);
    end if;
    return (select count(*)::integer from (
        select from task_runs t
        where hashtextextended(t.concurrency_key, 0) between v_digest and v_digest and t.queue_name = p_queue_name
          and t.limit_key = p_limit_key and t.priority = p_priority
          and greatest(t.enqueued_at, t.run_after) <= p_until
          and t.status = 'READY' and t.blocked_on = '' and t.concurrency_key <> '' and t.lost_count < 2
        order by hashtextextended(t.concurrency_key, 0), t.queue_name, t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after)
        limit p_max) c);
end
$$;

revoke execute on function _reproq_ready_backlog(text, text, text, integer, timestamptz, integer) from public;
comment on function _reproq_ready_backlog(text, text, text, integer, timestamptz, integer) is
    'Number of unblocked tasks of a key in one stream that are ready since p_until or before, up to a maximum. @0.1.0';
