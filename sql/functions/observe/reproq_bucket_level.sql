create or replace function reproq_bucket_level(
    p_rate real, p_burst integer, p_tokens real, p_refilled_at timestamptz, p_now timestamptz
) returns double precision
language sql immutable parallel safe
as $$
-- Tokens in a bucket at p_now: the stored level plus what has flowed in since, at most the burst.
-- A clock that stepped back refills nothing.
select least(
    p_burst::double precision,
    p_tokens::double precision
        + p_rate::double precision * greatest(0, extract(epoch from p_now - p_refilled_at)::double precision))
$$;

revoke execute on function reproq_bucket_level(real, integer, real, timestamptz, timestamptz) from public;
comment on function reproq_bucket_level(real, integer, real, timestamptz, timestamptz) is
    'Tokens in a bucket at an instant, refilled but not stored. @0.1.0';
