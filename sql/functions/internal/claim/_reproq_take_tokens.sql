create or replace function _reproq_take_tokens(p_buckets text[], p_now timestamptz)
returns table (place integer)
language plpgsql volatile parallel unsafe
as $$
-- p_buckets names the bucket of each task in order (null = unlimited). Returns the places of the tasks that got a
-- token: each bucket gives its first tasks one, as long as it has a whole token left.
-- Locks: the rows of rate_limits, in key order, waiting; last of all locks. Writes the new level.
begin
    return query
    with wanted as materialized (
        select b.key, b.place::integer as place, row_number() over (partition by b.key order by b.place) as turn
        from unnest(p_buckets) with ordinality as b (key, place)
    ), locked as materialized (
        select r.key, r.tokens_per_second as rate,
               case when r.throttled_until > p_now then 0 else reproq_bucket_level(
                   r.tokens_per_second, r.burst_size, r.current_tokens, r.last_refilled_at, p_now) end as tokens
        from rate_limits r
        where r.key in (select w.key from wanted w) and (r.tokens_per_second > 0 or r.throttled_until > p_now)
        order by r.key
        for no key update
    ), paid as materialized (
        select w.key, w.place
        from wanted w
        left join locked l on l.key = w.key
        where w.key is null or l.key is null or w.turn <= floor(l.tokens)
    ), stored as (
        update rate_limits r
        set current_tokens = l.tokens - p.number, last_refilled_at = greatest(r.last_refilled_at, p_now)
        from locked l
        join (select d.key, count(*) as number from paid d where d.key is not null group by d.key) p on p.key = l.key
        where r.key = l.key
    )
    select p.place from paid p;
end
$$;

revoke execute on function _reproq_take_tokens(text[], timestamptz) from public;
comment on function _reproq_take_tokens(text[], timestamptz) is
    'Takes one token per task from its bucket; returns the tasks that got one. @0.1.0';
