create or replace function reproq_complete_and_claim(
    p_result_ids bigint[],
    p_lease_tokens uuid[],
    p_returns jsonb[],
    p_logs_uris text[],
    p_accounts jsonb[],
    p_worker_id text,
    p_queues text[],
    p_limit integer,
    p_lease interval,
    p_aging_factor double precision default 60,
    p_hint jsonb default null,
    p_incarnation uuid default null
) returns table (
    answer text, result_id bigint, lease_token uuid, queue_name text, priority integer, task_path text, spec_json jsonb,
    attempts integer, max_attempts integer, timeout_seconds integer, enqueued_at timestamptz, waited interval,
    lost_count integer, limit_key text, ready_since timestamptz
)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
#variable_conflict use_column
-- reproq_complete and then reproq_claim in one transaction, for a worker that has no free slot but those of the attempts
-- that it completes. First the answers of reproq_complete, one row per element, in order. Then the claimed tasks, which
-- have no answer. Raises what the two raise; then nothing is stored: repeat the completion by itself.
-- While a token bucket has a rate or is throttled nothing is claimed: a claim waits for buckets, and this transaction holds the locks of
-- a completion. So fewer tasks than p_limit say nothing: ask reproq_claim.
-- Locks: those of reproq_complete, then tasks (skip) and keys (try). Writes what the two write.
begin
    return query
    select c.answer, c.result_id, null::uuid, null::text, null::integer, null::text, null::jsonb, null::integer,
           null::integer, null::integer, null::timestamptz, null::interval, null::integer, null::text, null::timestamptz
    from reproq_complete(p_result_ids, p_lease_tokens, p_returns, p_logs_uris, p_accounts) c;

    if not exists (select from rate_limits r where r.tokens_per_second > 0 or r.throttled_until > reproq_now()) then
        return query
        select null::text, c.*
        from reproq_claim(p_worker_id, p_queues, p_limit, p_lease, p_aging_factor, p_hint, p_incarnation) c;
    end if;
end
$$;

revoke execute on function reproq_complete_and_claim(bigint[], uuid[], jsonb[], text[], jsonb[], text, text[], integer, interval, double precision, jsonb, uuid) from public;
comment on function reproq_complete_and_claim(bigint[], uuid[], jsonb[], text[], jsonb[], text, text[], integer, interval, double precision, jsonb, uuid) is
    'Ends attempts that succeeded and claims tasks for their slots in one transaction; what a busy worker calls. @0.1.0';
