create or replace function reproq_fail(
    p_result_ids bigint[], p_lease_tokens uuid[], p_errors jsonb[], p_retryable boolean[],
    p_logs_uris text[] default null
) returns table (result_id bigint, answer text, run_after timestamptz)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Ends attempts that did not succeed. One row per element, in order: retry, snoozed, throttled (READY again, due at
-- run_after), failed, cancelled (final), already (with run_after when the first call gave one), succeeded (the attempt
-- had completed before: its success stands), lost, busy. An error is an object {kind, message, exception_class, ...}.
-- Retried when attempts are left, no cancel is requested, and the error is retryable: p_retryable says so; null
-- leaves it to the kind. Some kinds never are (_reproq_is_retryable).
-- What a task asks for by its kind: retry_asked (as a failure, due after after_seconds, null = the backoff); discarded;
-- snoozed (due after after_seconds or at until, not charged, 1,000 times at most, then it fails as snooze_limit);
-- throttled (not charged; no task of its path starts before after_seconds are over).
-- Raises RQ001 on arrays of different lengths, RQ003.
-- Locks: keys, workflow rows, then tasks by id and dependents (skip locked), last buckets of throttled paths.
-- Writes the tasks and what depends on them.
declare
    v_answers text[];
    v_errors jsonb[];
    v_now timestamptz;
    v_run_afters timestamptz[];
begin
    perform _reproq_require_read_committed();
    perform _reproq_check_arrays('reproq_fail', p_result_ids, array[
        cardinality(p_lease_tokens), cardinality(p_errors), cardinality(p_retryable),
        coalesce(cardinality(p_logs_uris), cardinality(p_result_ids))]);
    v_answers := _reproq_lock_attempts(p_result_ids, p_lease_tokens);
    v_now := reproq_now();

    select array_agg(d.answer order by u.place),
           array_agg(case when d.answer in ('retry', 'snoozed', 'throttled') then greatest(v_now, coalesce(
                              case when d.answer = 'snoozed' and _reproq_is_instant(u.error -> 'until')
                                   then (u.error ->> 'until')::timestamptz end,
                              v_now + _reproq_duration(u.error -> 'after_seconds'),
                              v_now + _reproq_backoff(t.spec_json, t.attempts)))
                          when d.answer = 'already' and t.last_token = u.token and t.last_answer in ('retry', 'snoozed', 'throttled')
                          then greatest(t.run_after, v_now) end order by u.place),
           array_agg(case when d.answer = 'cancelled'
                              then jsonb_build_object('kind', 'cancelled', 'message', 'cancelled while it ran')
                          when d.answer = 'failed' and u.error ->> 'kind' = 'snoozed'
                              then jsonb_build_object('kind', 'snooze_limit', 'message', 'it asked to be snoozed more than 1,000 times')
                          else coalesce(u.error, '{}') end order by u.place)
    into v_answers, v_run_afters, v_errors
    from unnest(p_result_ids, p_lease_tokens, p_errors, p_retryable, v_answers)
        with ordinality as u (id, token, error, retryable, answer, place)
    left join task_runs t on t.result_id = any (array[u.id])
    cross join lateral (
        select case
            when u.answer = 'already' and t.last_token = u.token and t.last_answer = 'ok' then 'succeeded'
            when u.answer <> 'ok' then u.answer
            when u.error ->> 'kind' in ('snoozed', 'throttled') and t.cancel_requested then 'cancelled'
            when u.error ->> 'kind' = 'throttled' then 'throttled'
            when u.error ->> 'kind' = 'snoozed' then case when t.snooze_count < 1000 then 'snoozed' else 'failed' end
            when t.attempts < t.max_attempts and not t.cancel_requested
                and _reproq_is_retryable(u.error) and coalesce(u.retryable, true) then 'retry'
            else 'failed' end as answer) d;

    perform _reproq_requeue(
        array_agg(u.id),
        array_agg(case when u.answer = 'retry' then u.error end),
        array_agg(case when u.answer <> 'throttled' then u.run_after end),
        u.answer, array_agg(u.logs_uri))
    from unnest(p_result_ids, v_errors, v_run_afters, p_logs_uris, v_answers) as u (id, error, run_after, logs_uri, answer)
    where u.answer in ('retry', 'snoozed', 'throttled')
    group by u.answer;
    perform _reproq_finish(array_agg(u.id), null, array_agg(u.error), array_agg(u.logs_uri))
    from unnest(p_result_ids, v_errors, p_logs_uris, v_answers) as u (id, error, logs_uri, answer)
    where u.answer in ('failed', 'cancelled')
    having count(*) > 0;
    if 'throttled' = any (v_answers) then
        perform _reproq_throttle(array_agg(t.task_path), array_agg(u.run_after), v_now)
        from unnest(p_result_ids, v_run_afters, v_answers) as u (id, run_after, answer)
        join task_runs t on t.result_id = any (array[u.id])
        where u.answer = 'throttled';
    end if;

    return query
    select u.id, u.answer, u.run_after
    from unnest(p_result_ids, v_answers, v_run_afters) with ordinality as u (id, answer, run_after, place)
    order by u.place;
end
$$;

revoke execute on function reproq_fail(bigint[], uuid[], jsonb[], boolean[], text[]) from public;
comment on function reproq_fail(bigint[], uuid[], jsonb[], boolean[], text[]) is
    'Ends attempts that did not succeed: retry, snoozed or throttled (with their time), failed, cancelled, already, succeeded, lost or busy for each. @0.1.0';
