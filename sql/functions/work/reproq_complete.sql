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
-- Tasks without keys, workflow or steps behind them end in the first statement; the others in what follows it. Of one
-- such task it is a statement of its own, which costs less.
-- Locks: tasks that end in the first statement (skip locked), then for the others keys, workflow rows, tasks by id and
-- dependents. No session waits for a task of the first kind while it holds what the others wait for.
-- Writes the tasks and what depends on them.
declare
    v_now timestamptz;
    v_done bigint[];
    v_done_tokens uuid[];
    v_watched bigint[];
    v_is_watched boolean;
    v_is_left boolean[];
    v_ids bigint[];
    v_tokens uuid[];
    v_answers text[];
begin
    if p_result_ids is null or cardinality(p_lease_tokens) is distinct from cardinality(p_result_ids)
       or cardinality(p_returns) is distinct from cardinality(p_result_ids)
       or cardinality(p_logs_uris) <> cardinality(p_result_ids) or cardinality(p_accounts) <> cardinality(p_result_ids) then
        perform _reproq_check_arrays('reproq_complete', p_result_ids, array[
            cardinality(p_lease_tokens), cardinality(p_returns),
            coalesce(cardinality(p_logs_uris), cardinality(p_result_ids)),
            coalesce(cardinality(p_accounts), cardinality(p_result_ids))]);
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        perform _reproq_require_read_committed();
    end if;
    v_now := reproq_now();

    if cardinality(p_result_ids) = 1 then
        perform from task_runs t
        where t.result_id = p_result_ids[1] and t.lease_token = p_lease_tokens[1]
          and coalesce(t.lock_key, '') = '' and coalesce(t.concurrency_key, '') = '' and num_nonnulls(t.workflow_id) = 0
          and not exists (select from task_runs c where c.parent_id = p_result_ids[1] and c.status || '' = 'WAITING')
        for no key update skip locked;
        if found then
            update task_runs t
            set status = 'SUCCESSFUL', return_json = p_returns[1], finished_at = v_now, updated_at = v_now, failed_at = null,
                last_error = null, logs_uri = coalesce(p_logs_uris[1], t.logs_uri),
                metadata_json = case when p_accounts[1] is null then t.metadata_json
                    else _reproq_merge(t.metadata_json, jsonb_build_object('reproq', p_accounts[1])) end,
                last_token = t.lease_token, last_answer = 'ok', revision = t.revision + 1,
                lease_token = null, leased_until = null, leased_by = null, leased_incarnation = null
            where t.result_id = p_result_ids[1]
            returning t.result_id, 'ok', t.notify_end into result_id, answer, v_is_watched;
            if v_is_watched then
                perform _reproq_notify_ended(p_result_ids);
            end if;
            return next;
            return;
        end if;
    end if;

    with locked as materialized (
        select t.result_id, t.lease_token
        from task_runs t
        where t.result_id = any (p_result_ids)
          -- Under case: the planner would make a join of it, which compares each with each (sql/README.md, "Plans").
          and case when (t.result_id, t.lease_token) in (
                  select u.id, u.token from unnest(p_result_ids, p_lease_tokens) as u (id, token)) then true end
          and coalesce(t.lock_key, '') = '' and coalesce(t.concurrency_key, '') = '' and num_nonnulls(t.workflow_id) = 0
          and t.result_id not in (select c.parent_id from task_runs c
                                  where c.parent_id = any (p_result_ids) and c.status || '' = 'WAITING')
        order by t.result_id
        for no key update skip locked
    ), ended as (
        update task_runs t
        set status = 'SUCCESSFUL', return_json = u.value, finished_at = v_now, updated_at = v_now, failed_at = null, last_error = null,
            logs_uri = coalesce(u.logs_uri, t.logs_uri),
            metadata_json = case when u.account is null then t.metadata_json
                else _reproq_merge(t.metadata_json, jsonb_build_object('reproq', u.account)) end,
            last_token = t.lease_token, last_answer = 'ok', revision = t.revision + 1,
            lease_token = null, leased_until = null, leased_by = null, leased_incarnation = null
        from unnest(p_result_ids, p_lease_tokens, p_returns, p_logs_uris, p_accounts)
             as u (id, token, value, logs_uri, account)
        where t.result_id = any (array[u.id])
          and case when (u.id, u.token) in (select l.result_id, l.lease_token from locked l) then true end
        returning t.result_id, t.last_token, t.notify_end
    )
    select array_agg(e.result_id), array_agg(e.last_token), array_agg(e.result_id) filter (where e.notify_end)
    into v_done, v_done_tokens, v_watched
    from ended e;
    if v_watched is not null then
        perform _reproq_notify_ended(v_watched);
    end if;
    if cardinality(v_done) = cardinality(p_result_ids) then
        return query select u.id, 'ok'::text from unnest(p_result_ids) as u (id);
        return;
    end if;

    -- The others, in their order. rank: place among them.
    v_is_left := array(
        select u.turn > 1 or (u.id, u.token) in (select d.id, d.token from unnest(v_done, v_done_tokens) as d (id, token))
               is not true
        from (select u.id, u.token, u.place, row_number() over (partition by u.id, u.token order by u.place) as turn
              from unnest(p_result_ids, p_lease_tokens) with ordinality as u (id, token, place)) u
        order by u.place);
    select array_agg(u.id order by u.place), array_agg(u.token order by u.place) into v_ids, v_tokens
    from unnest(p_result_ids, p_lease_tokens, v_is_left) with ordinality as u (id, token, is_left, place)
    where u.is_left;
    v_answers := _reproq_lock_attempts(v_ids, v_tokens);
    v_answers := array(
        select case when u.is_left then v_answers[u.rank] end
        from (select p.is_left, p.place, count(*) filter (where p.is_left) over (order by p.place) as rank
              from unnest(v_is_left) with ordinality as p (is_left, place)) u
        order by u.place);
    perform _reproq_finish(array_agg(u.id), array_agg(u.value), null, array_agg(u.logs_uri), array_agg(u.account))
    from unnest(p_result_ids, p_returns, p_logs_uris, p_accounts, v_answers) as u (id, value, logs_uri, account, answer)
    where u.answer = 'ok'
    having count(*) > 0;
    return query
    -- An attempt that ended otherwise (failed by its reclaim, released) is over, but this success is not stored.
    select u.id, case
        when u.answer is null then 'ok'
        when u.answer = 'already' and t.last_token = u.token and t.last_answer <> 'ok' then 'lost'
        else u.answer end
    from unnest(p_result_ids, p_lease_tokens, v_answers) with ordinality as u (id, token, answer, place)
    left join task_runs t on t.result_id = any (array[u.id])
    order by u.place;
end
$$;

revoke execute on function reproq_complete(bigint[], uuid[], jsonb[], text[], jsonb[]) from public;
comment on function reproq_complete(bigint[], uuid[], jsonb[], text[], jsonb[]) is
    'Ends attempts that succeeded and stores their results: ok, already, lost or busy for each. @0.1.0';
