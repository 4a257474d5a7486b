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
-- Ends attempts that failed. One row per element, in order: retry (READY again at run_after), failed (final),
-- already (with run_after when the first call answered retry), lost, busy. An error is an object {kind, message,
-- exception_class, traceback, ...}.
-- Retried when attempts are left, no cancel is requested, and the error is retryable: p_retryable says so; null
-- leaves it to the kind. Some kinds never are (_reproq_is_retryable). Raises RQ001 on arrays of different lengths,
-- RQ003.
-- Locks: keys, workflow rows, then tasks by id and dependents (skip locked). Writes the tasks and what depends on them.
declare
    v_answers text[];
    v_now timestamptz;
    v_run_afters timestamptz[];
begin
    perform _reproq_require_read_committed();
    perform _reproq_check_arrays('reproq_fail', p_result_ids, array[
        cardinality(p_lease_tokens), cardinality(p_errors), cardinality(p_retryable),
        coalesce(cardinality(p_logs_uris), cardinality(p_result_ids))]);
    v_answers := _reproq_lock_attempts(p_result_ids, p_lease_tokens);
    v_now := reproq_now();

    select array_agg(case when u.answer <> 'ok' then u.answer
                          when d.retry then 'retry' else 'failed' end order by u.place),
           array_agg(case when u.answer = 'ok' and d.retry then v_now + _reproq_backoff(t.spec_json, t.attempts)
                          when u.answer = 'already' and t.last_token = u.token and t.last_answer = 'retry'
                          then greatest(t.run_after, v_now) end order by u.place)
    into v_answers, v_run_afters
    from unnest(p_result_ids, p_lease_tokens, p_errors, p_retryable, v_answers)
        with ordinality as u (id, token, error, retryable, answer, place)
    left join task_runs t on t.result_id = any (array[u.id])
    cross join lateral (
        select t.attempts < t.max_attempts and not t.cancel_requested
               and _reproq_is_retryable(u.error) and coalesce(u.retryable, true) as retry) d;

    perform _reproq_requeue(array_agg(u.id), array_agg(coalesce(u.error, '{}')), array_agg(u.run_after), 'retry', array_agg(u.logs_uri))
    from unnest(p_result_ids, p_errors, v_run_afters, p_logs_uris, v_answers) as u (id, error, run_after, logs_uri, answer)
    where u.answer = 'retry'
    having count(*) > 0;
    perform _reproq_finish(array_agg(u.id), null, array_agg(coalesce(u.error, '{}')), array_agg(u.logs_uri))
    from unnest(p_result_ids, p_errors, p_logs_uris, v_answers) as u (id, error, logs_uri, answer)
    where u.answer = 'failed'
    having count(*) > 0;

    return query
    select u.id, u.answer, u.run_after
    from unnest(p_result_ids, v_answers, v_run_afters) with ordinality as u (id, answer, run_after, place)
    order by u.place;
end
$$;

revoke execute on function reproq_fail(bigint[], uuid[], jsonb[], boolean[], text[]) from public;
comment on function reproq_fail(bigint[], uuid[], jsonb[], boolean[], text[]) is
    'Ends attempts that failed: retry (with its time), failed, already, lost or busy for each. @0.1.0';
