create or replace function reproq_complete(
    p_result_ids bigint[], p_lease_tokens uuid[], p_returns jsonb[], p_logs_uris text[] default null,
    p_accounts jsonb[] default null
) returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Ends attempts as SUCCESSFUL. One row per element, in order: ok, already (said before), lost (not yours any
-- more), busy (ask again within a second). A success that comes after a cancel request stays a success.
-- p_accounts: what each attempt used (an object, kept in metadata_json.reproq), or null.
-- Cannot fail by content or by a constraint. Raises RQ001 on arrays of different lengths, RQ003.
-- Locks: keys, workflow rows, then tasks by id and dependents (skip locked). Writes the tasks and what depends on them.
declare
    v_answers text[];
begin
    perform _reproq_require_read_committed();
    perform _reproq_check_arrays('reproq_complete', p_result_ids, array[
        cardinality(p_lease_tokens), cardinality(p_returns),
        coalesce(cardinality(p_logs_uris), cardinality(p_result_ids)),
        coalesce(cardinality(p_accounts), cardinality(p_result_ids))]);
    v_answers := _reproq_lock_attempts(p_result_ids, p_lease_tokens);
    perform _reproq_finish(array_agg(u.id), array_agg(u.value), null, array_agg(u.logs_uri), array_agg(u.account))
    from unnest(p_result_ids, p_returns, p_logs_uris, p_accounts, v_answers) as u (id, value, logs_uri, account, answer)
    where u.answer = 'ok'
    having count(*) > 0;
    return query
    -- An attempt that ended otherwise (failed by its reclaim, released) is over, but this success is not stored.
    select u.id, case
        when u.answer = 'already' and t.last_token = u.token and t.last_answer <> 'ok' then 'lost'
        else u.answer end
    from unnest(p_result_ids, p_lease_tokens, v_answers) with ordinality as u (id, token, answer, place)
    left join task_runs t on t.result_id = u.id
    order by u.place;
end
$$;

revoke execute on function reproq_complete(bigint[], uuid[], jsonb[], text[], jsonb[]) from public;
comment on function reproq_complete(bigint[], uuid[], jsonb[], text[], jsonb[]) is
    'Ends attempts that succeeded and stores their results: ok, already, lost or busy for each. @0.1.0';
