create or replace view reproq_limits with (security_barrier) as
select r.key,
       r.tokens_per_second,
       r.burst_size,
       case when r.tokens_per_second > 0 then l.tokens end as tokens,
       case when r.tokens_per_second > 0
            then make_interval(secs => least(1e9, greatest(0, (1 - l.tokens) / r.tokens_per_second::double precision))) end as next_token,
       case when r.throttled_until > reproq_now() then r.throttled_until end as throttled_until
from rate_limits r
cross join lateral (
    select reproq_bucket_level(
        r.tokens_per_second, r.burst_size, r.current_tokens, r.last_refilled_at, reproq_now()) as tokens) l;

revoke all on reproq_limits from public;
comment on view reproq_limits is
    'Token buckets: tokens now, and time until there is one (next_token, 0 = now); both null for a limit that is off. Nothing starts before throttled_until: a task asked for it.';
