create or replace function _reproq_candidates(
    p_queues text[], p_want integer, p_now timestamptz, p_aging_factor double precision,
    p_hint jsonb, p_seen bigint[], p_buckets text[], p_busy text[]
) returns table (result_id bigint, queue_name text, bucket text, own_limit_key text, limit_key text)
language plpgsql stable parallel unsafe
as $$
-- The next p_want due tasks in claim order, p_seen left out, none locked: the k-way merge.
-- Each open stream is in order already (ready since, id), so its head is its best. The best tasks of a queue
-- and bucket lie in the streams with the p_want best heads; those are read p_want deep (no deeper than there are tokens)
-- and merged by effective priority = priority + age / aging factor (factor 0: priority), then ready since, then id.
-- A queue and limit key with 16 streams may have any number of them: _reproq_first_of_many adds tasks of the others.
-- Queues take turns in the order of p_queues. A bucket gives no more candidates than it has tokens, less those that
-- p_buckets (the buckets of the tasks that this claim has given already) names.
-- p_busy: keys (l:... and c:...) that this claim found busy. Tasks of these are stepped over, 100,000 of a stream at most.
-- own_limit_key: the label the task should carry. Whether a task may start is decided by its row once that is locked.
begin
    return query
    with streams as materialized (
        select s.* from _reproq_open_streams(p_queues, p_now, p_hint) s
    ), heads as materialized (
        select s.*, h.since as ready_since, h.id as first_id,
               _reproq_effective_priority(s.priority, h.since, p_now, p_aging_factor) as effective
        from streams s
        cross join lateral (
            select s.head_since as since, s.head_id as id
            where s.head_id is not null and s.head_id <> all (p_seen) and p_busy = '{}'
            union all
            (select r.since, r.result_id
             from (select greatest(t.enqueued_at, t.run_after) as since, t.result_id, t.lock_key, t.concurrency_key, t.concurrency_limit
                   from task_runs t
                   where t.queue_name = s.queue_name and t.limit_key = s.limit_key and t.priority = s.priority
                     and t.status = 'READY' and t.blocked_on = ''
                     and greatest(t.enqueued_at, t.run_after) between s.since and p_now
                     and t.result_id <> all (p_seen)
                   order by greatest(t.enqueued_at, t.run_after), t.result_id
                   limit 100000) r
             where not _reproq_is_busy(p_busy, r.lock_key, r.concurrency_key, r.concurrency_limit)
             limit 1)
            limit 1) h
        where h.since <= p_now
    ), best as materialized (
        select h.*, row_number() over (
            partition by h.queue_place, h.bucket order by h.effective desc, h.ready_since, h.first_id) as place
        from heads h
    ), deep as materialized (
        select b.queue_name, b.queue_place, b.bucket, b.tokens, c.*
        from best b
        cross join lateral (
            select r.result_id, r.priority, r.ready_since, r.limit_key, r.task_path
            from (select t.*, greatest(t.enqueued_at, t.run_after) as ready_since
                  from task_runs t
                  where t.queue_name = b.queue_name and t.limit_key = b.limit_key and t.priority = b.priority
                    and t.status = 'READY' and t.blocked_on = ''
                    and greatest(t.enqueued_at, t.run_after) between b.since and p_now
                    and t.result_id <> all (p_seen)
                  order by greatest(t.enqueued_at, t.run_after), t.result_id
                  limit p_want + 100000) r
            where not _reproq_is_busy(p_busy, r.lock_key, r.concurrency_key, r.concurrency_limit)
            limit least(p_want, b.tokens)) c
        where b.place <= p_want
    ), found as (
        select d.* from deep d
        union all
        select s.queue_name, s.queue_place, s.bucket, s.tokens, f.*
        from streams s
        cross join lateral _reproq_first_of_many(s.queue_name, s.limit_key, p_want, p_now, p_seen, p_busy) f
        where s.number = 16 and f.result_id not in (select d.result_id from deep d)
    ), merged as (
        select f.*, row_number() over (
            partition by f.queue_place
            order by _reproq_effective_priority(f.priority, f.ready_since, p_now, p_aging_factor) desc,
                     f.ready_since, f.result_id) as turn
        from found f
    ), paid as (
        select m.*, case when m.bucket is null then 1
            else row_number() over (partition by m.bucket order by m.turn, m.queue_place) end as token
        from merged m
        where m.turn <= p_want or exists (select from streams s where s.bucket is not null)
    ), next as (
        select p.*, row_number() over (partition by p.queue_place order by p.turn) as place
        from paid p
        where p.bucket is null or p.token <= p.tokens - cardinality(array_positions(p_buckets, p.bucket))
        order by place, p.queue_place
        limit p_want
    )
    select n.result_id, n.queue_name, n.bucket, coalesce(r.key, ''), n.limit_key
    from next n
    left join rate_limits r on r.key = 'task:' || n.task_path
    order by n.place, n.queue_place;
end
$$;

revoke execute on function _reproq_candidates(text[], integer, timestamptz, double precision, jsonb, bigint[], text[], text[]) from public;
comment on function _reproq_candidates(text[], integer, timestamptz, double precision, jsonb, bigint[], text[], text[]) is
    'The next due tasks in claim order, looked at without locks. @0.1.0';
