create or replace function _reproq_first_of_many(
    p_queue_name text, p_limit_key text, p_want integer, p_now timestamptz, p_seen bigint[], p_busy text[]
) returns table (result_id bigint, priority integer, ready_since timestamptz, limit_key text, task_path text)
language plpgsql stable parallel unsafe
as $$
-- Of a queue and limit key with any number of priorities, the due tasks that may be first by priority and age together:
-- the first p_want + 100 by priority and ready since, and the p_want + 100 that are ready longest; p_seen left out.
-- Effective priority grows with both, so any other task has at most the last priority of the first list and the last age
-- of the second: sql/README.md, "Many priorities", says when that proves the order, and what the order is otherwise.
-- The first list steps over 1,000 tasks that are due later or wait for a key of p_busy, the second over 100,000 of the
-- latter.
begin
    return query
    (select r.result_id, r.priority, r.ready_since, r.limit_key, r.task_path
     from (select t.*, greatest(t.enqueued_at, t.run_after) as ready_since
           from task_runs t
           where t.queue_name = p_queue_name and t.limit_key between p_limit_key and p_limit_key
             and t.status = 'READY' and t.blocked_on = '' and t.result_id <> all (p_seen)
           order by t.limit_key, t.priority desc, greatest(t.enqueued_at, t.run_after), t.result_id
           limit p_want + 1100) r
     where r.ready_since <= p_now and not _reproq_is_busy(p_busy, r.lock_key, r.concurrency_key, r.concurrency_limit)
     limit p_want + 100)
    union
    (select r.result_id, r.priority, r.ready_since, r.limit_key, r.task_path
     from (select t.*, greatest(t.enqueued_at, t.run_after) as ready_since
           from task_runs t
           where t.queue_name = p_queue_name and t.limit_key between p_limit_key and p_limit_key
             and '' || t.status = 'READY' and t.blocked_on = '' and t.result_id <> all (p_seen)
             and greatest(t.enqueued_at, t.run_after) <= p_now
           order by t.limit_key, greatest(t.enqueued_at, t.run_after), t.result_id
           limit p_want + 100000) r
     where not _reproq_is_busy(p_busy, r.lock_key, r.concurrency_key, r.concurrency_limit)
     limit p_want + 100);
end
$$;

revoke execute on function _reproq_first_of_many(text, text, integer, timestamptz, bigint[], text[]) from public;
comment on function _reproq_first_of_many(text, text, integer, timestamptz, bigint[], text[]) is
    'The first due tasks of a queue and limit key by priority, and by ready since. @0.1.0';
