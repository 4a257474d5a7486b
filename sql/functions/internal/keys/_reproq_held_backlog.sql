create or replace function _reproq_held_backlog(p_blocked_on text, p_max integer) returns integer
language plpgsql volatile parallel unsafe
as $$
-- How many unblocked tasks of a key (l:... or c:...) other sessions hold, of the first p_max: a claim steps over these.
-- Locks: the others of them, skip locked. "between x and x" and the order: sql/README.md, "Plans".
declare
    v_digest bigint := hashtextextended(substr(p_blocked_on, 3), 0);
    v_ids bigint[];
    v_free integer;
begin
    if p_blocked_on like 'l:%' then
        v_ids := array(
            select t.result_id from task_runs t
            where hashtextextended(t.lock_key, 0) between v_digest and v_digest
              and t.status = 'READY' and t.blocked_on = '' and t.lock_key <> ''
            order by hashtextextended(t.lock_key, 0), t.queue_name, t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after)
            limit p_max);
    else
        v_ids := array(
            select t.result_id from task_runs t
            where hashtextextended(t.concurrency_key, 0) between v_digest and v_digest
              and t.status = 'READY' and t.blocked_on = '' and t.concurrency_key <> ''
            order by hashtextextended(t.concurrency_key, 0), t.queue_name, t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after)
            limit p_max);
    end if;
    perform from task_runs t
    where t.result_id = any (v_ids)
    order by t.result_id
    for no key update skip locked;
    get diagnostics v_free = row_count;
    return cardinality(v_ids) - v_free;
end
$$;

revoke execute on function _reproq_held_backlog(text, integer) from public;
comment on function _reproq_held_backlog(text, integer) is
    'Number of unblocked tasks of a key that other sessions hold, among the first ones. @0.1.0';
