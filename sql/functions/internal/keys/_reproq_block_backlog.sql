create or replace function _reproq_block_backlog(p_blocked_on text, p_limit integer, p_decided bigint[]) returns integer
language plpgsql volatile parallel unsafe
as $$
-- Blocks up to p_limit due tasks that stand in the claim index and wait for a busy key (l:... or c:...), without those
-- that the claim has decided already; how many.
-- Otherwise a claim would meet and block them one by one, and nothing behind them could start.
-- The caller has seen the key busy under its advisory lock; _reproq_release_keys of its holder then unblocks.
-- Locks: the tasks it changes, skip locked. "between x and x" and the order: sql/README.md, "Plans".
declare
    v_digest bigint := hashtextextended(substr(p_blocked_on, 3), 0);
    v_now timestamptz := reproq_now();
    v_ids bigint[];
    v_count integer;
begin
    if p_blocked_on like 'l:%' then
        v_ids := array(
            select t.result_id from task_runs t
            where hashtextextended(t.lock_key, 0) between v_digest and v_digest
              and t.status = 'READY' and t.blocked_on = '' and t.lock_key <> ''
            order by hashtextextended(t.lock_key, 0), t.queue_name, t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after)
            limit p_limit);
    else
        v_ids := array(
            select t.result_id from task_runs t
            where hashtextextended(t.concurrency_key, 0) between v_digest and v_digest
              and t.status = 'READY' and t.blocked_on = '' and t.concurrency_key <> '' and t.concurrency_limit > 0
            order by hashtextextended(t.concurrency_key, 0), t.queue_name, t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after)
            limit p_limit);
    end if;
    with locked as materialized (
        select t.result_id, t.status, t.blocked_on, greatest(t.enqueued_at, t.run_after) as ready_since,
               case when p_blocked_on like 'l:%' then 'l:' || t.lock_key else 'c:' || t.concurrency_key end as key
        from task_runs t
        where t.result_id = any (v_ids) and t.result_id <> all (p_decided)
        order by t.result_id
        for no key update skip locked
    )
    update task_runs t set blocked_on = p_blocked_on, revision = t.revision + 1
    where t.result_id = any (array(
        select l.result_id from locked l
        where l.status = 'READY' and l.blocked_on = '' and l.key = p_blocked_on and l.ready_since <= v_now));
    get diagnostics v_count = row_count;
    return v_count;
end
$$;

revoke execute on function _reproq_block_backlog(text, integer, bigint[]) from public;
comment on function _reproq_block_backlog(text, integer, bigint[]) is
    'Blocks due tasks in the claim index that wait for a busy key; how many. @0.1.0';
