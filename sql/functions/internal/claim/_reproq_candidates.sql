create or replace function _reproq_candidates(
    p_queues text[], p_want integer, p_now timestamptz, p_aging_factor double precision,
    p_hint jsonb, p_seen bigint[], p_buckets text[]
) returns table (result_id bigint, queue_name text, bucket text, own_limit_key text, limit_key text)
language plpgsql stable parallel unsafe
as $$
-- The next p_want due tasks in claim order, p_seen left out, none locked: the k-way merge.
-- Each open stream is in order already (ready since, id), so its head is its best. The best tasks of a queue
-- and bucket lie in the streams with the p_want best heads; those are read p_want deep and merged by effective
-- priority = priority + age / aging factor (factor 0: priority), then ready since, then id.
-- Queues take turns in the order of p_queues. A bucket gives no more candidates than it has tokens, less those that
-- p_buckets (the buckets of the tasks that this claim has given already) names.
-- own_limit_key: the label the task should carry. Whether a task may start is decided by its row once that is locked.
begin
    return query
    with heads as materialized (
        select s.*, h.since as ready_since, h.id as first_id,
               _reproq_effective_priority(s.priority, h.since, p_now, p_aging_factor) as effective
        from _reproq_open_streams(p_queues, p_now, p_hint) s
        cross join lateral (
            select s.head_since as since, s.head_id as id
            where s.head_id is not null and s.head_id <> all (p_seen)
            union all
            (select greatest(t.enqueued_at, t.run_after), t.result_id
             from task_runs t
             where t.queue_name = s.queue_name and t.limit_key = s.limit_key and t.priority = s.priority
               and t.status = 'READY' and t.blocked_on = ''
               and greatest(t.enqueued_at, t.run_after) between s.since and p_now
               and t.result_id <> all (p_seen)
             order by greatest(t.enqueued_at, t.run_after), t.result_id
             limit 1)
            limit 1) h
        where h.since <= p_now
    ), best as materialized (
        select h.*, row_number() over (
            partition by h.queue_place, h.bucket order by h.effective desc, h.ready_since, h.first_id) as place
        from heads h
    ), merged as (
        select c.*, b.queue_name, b.queue_place, b.bucket, b.tokens, row_number() over (
            partition by b.queue_place
            order by _reproq_effective_priority(b.priority, c.ready_since, p_now, p_aging_factor) desc,
                     c.ready_since, c.result_id) as turn
        from best b
        cross join lateral (
            select t.result_id, greatest(t.enqueued_at, t.run_after) as ready_since, t.limit_key, t.task_path
            from task_runs t
            where t.queue_name = b.queue_name and t.limit_key = b.limit_key and t.priority = b.priority
              and t.status = 'READY' and t.blocked_on = ''
              and greatest(t.enqueued_at, t.run_after) between b.since and p_now
              and t.result_id <> all (p_seen)
            order by greatest(t.enqueued_at, t.run_after), t.result_id
            limit p_want) c
        where b.place <= p_want
    ), paid as (
        select m.*, case when m.bucket is null then 1
            else row_number() over (partition by m.bucket order by m.turn, m.queue_place) end as token
        from merged m
    )
    select p.result_id, p.queue_name, p.bucket, coalesce(r.key, ''), p.limit_key
    from paid p
    left join rate_limits r on r.key = 'task:' || p.task_path
    where p.bucket is null or p.token <= p.tokens - cardinality(array_positions(p_buckets, p.bucket))
    order by row_number() over (partition by p.queue_place order by p.turn), p.queue_place
    limit p_want;
end
$$;

revoke execute on function _reproq_candidates(text[], integer, timestamptz, double precision, jsonb, bigint[], text[]) from public;
comment on function _reproq_candidates(text[], integer, timestamptz, double precision, jsonb, bigint[], text[]) is
    'The next due tasks in claim order, looked at without locks. @0.1.0';
