create or replace function _reproq_open_streams(p_queues text[], p_now timestamptz, p_hint jsonb)
returns table (queue_name text, queue_place integer, limit_key text, priority integer,
               since timestamptz, head_since timestamptz, head_id bigint, number integer, bucket text, tokens integer)
language plpgsql stable parallel unsafe
as $$
-- Streams a claim may take from: of p_hint if there is one, else all; buckets without a token left out.
-- since: where to start reading (the hint's place, or the beginning). head_since, head_id: the first task there, null
-- when it was not read; number: see _reproq_streams. bucket and tokens: null when unlimited.
begin
    return query
    with streams as materialized (
        select s.queue_name, s.queue_place, s.limit_key, s.priority, '-infinity'::timestamptz as since,
               s.head_since, s.head_id, s.number
        from _reproq_streams(p_queues) s
        where p_hint is null
        union all
        select h.queue_name, array_position(p_queues, h.queue_name), h.limit_key, h.priority::integer, h.since,
               null, null, null
        from jsonb_to_recordset(p_hint)
             as h (queue_name text, limit_key text, priority numeric, since timestamptz)
        where p_hint is not null and h.queue_name = any (p_queues)
          and not exists (
              select from reproq_queue_controls c where c.queue_name = h.queue_name and c.paused)
    ), places as (
        select s.*, row_number() over (partition by s.queue_name, s.limit_key) as place from streams s
    ), buckets as (
        -- One look for each queue and limit key; its other streams get the same bucket.
        select p.*, max(b.key) over k as bucket, max(b.tokens) over k as tokens
        from places p
        left join lateral (
            select r.key, r.tokens
            from _reproq_bucket(p.queue_name, p.limit_key, p_now) r
            where p.place = 1 and exists (
                select from rate_limits l where l.tokens_per_second > 0 or l.throttled_until > p_now)) b on true
        window k as (partition by p.queue_name, p.limit_key)
    )
    select b.queue_name, b.queue_place, b.limit_key, b.priority, coalesce(b.since, '-infinity'),
           b.head_since, b.head_id, b.number, b.bucket, floor(b.tokens)::integer
    from buckets b
    where b.tokens is null or b.tokens >= 1;
end
$$;

revoke execute on function _reproq_open_streams(text[], timestamptz, jsonb) from public;
comment on function _reproq_open_streams(text[], timestamptz, jsonb) is
    'Streams of queues that are not paused, with a token in their bucket. @0.1.0';
