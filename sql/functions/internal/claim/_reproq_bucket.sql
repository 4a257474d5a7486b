create or replace function _reproq_bucket(p_queue_name text, p_limit_key text, p_now timestamptz)
returns table (key text, tokens double precision, next_token interval)
language plpgsql stable parallel unsafe
as $$
-- The token bucket that applies to (queue, limit key), refilled to p_now but not stored: the most specific one:
-- task:<path>, else queue:<name>, else global. No row = unlimited: there is none, or its rate is 0. One that is throttled
-- has no token until then; one that only a throttle made (burst 0) counts as absent after that.
-- next_token: time after which one whole token is there for certain (up to 2 us more); 0 when it is there, 1e9 seconds
-- at most: a row of rate_limits may hold any rate.
-- Looks without a lock.
begin
    return query
    select r.key, b.tokens,
           make_interval(secs => case when b.tokens >= 1 then 0
               when r.throttled_until > p_now
                   then least(1e9, extract(epoch from r.throttled_until - p_now)::double precision + 0.000001)
               else least(1e9, (ceil((1 - b.tokens) / r.tokens_per_second::double precision * 1000000) + 1) / 1000000) end)
    from rate_limits r
    cross join lateral (
        select case when r.throttled_until > p_now then 0 else reproq_bucket_level(
            r.tokens_per_second, r.burst_size, r.current_tokens, r.last_refilled_at, p_now) end as tokens) b
    where (r.tokens_per_second > 0 or r.throttled_until > p_now)
      and r.key = any (array(
          select k.key from rate_limits k
          where k.key in (p_limit_key, 'queue:' || p_queue_name, 'global')
            and (k.burst_size > 0 or k.throttled_until > p_now)
          order by case k.key when p_limit_key then 1 when 'global' then 3 else 2 end
          limit 1));
end
$$;

revoke execute on function _reproq_bucket(text, text, timestamptz) from public;
comment on function _reproq_bucket(text, text, timestamptz) is
    'The token bucket that applies to a queue and limit key, with its level now; no row when unlimited. @0.1.0';
