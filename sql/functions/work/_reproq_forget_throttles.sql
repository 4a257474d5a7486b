create or replace function _reproq_forget_throttles(p_limit integer) returns void
language plpgsql volatile parallel unsafe
as $$
-- Forgets throttles that ended more than an hour ago; until then the audit log has the path. A bucket that a throttle
-- made (burst 0) goes. Locks: up to p_limit buckets, skip locked.
declare
    v_keys text[];
begin
    if not exists (select from rate_limits r where r.throttled_until is not null) then
        return;
    end if;
    v_keys := array(
        select r.key from rate_limits r
        where r.throttled_until < reproq_now() - interval '1 hour'
        limit p_limit
        for no key update skip locked);
    delete from rate_limits r where r.key = any (v_keys) and r.tokens_per_second = 0 and r.burst_size = 0;
    update rate_limits r set throttled_until = null where r.key = any (v_keys);
end
$$;

revoke execute on function _reproq_forget_throttles(integer) from public;
comment on function _reproq_forget_throttles(integer) is 'Forgets throttles that ended; part of reproq_reclaim. @0.1.0';
