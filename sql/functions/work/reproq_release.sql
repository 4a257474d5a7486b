create or replace function reproq_release(p_result_ids bigint[], p_lease_tokens uuid[])
returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Releases running tasks: READY as before the claim, the attempt not charged. One row per element, in
-- order: ok, cancelled (a cancel was requested: the task has ended instead), already, succeeded (the attempt had
-- completed before: its success stands), lost, busy.
-- Raises RQ001 on arrays of different lengths, RQ003.
-- Locks: keys, workflow rows, tasks by id (skip locked).
declare
    v_answers text[];
begin
    perform _reproq_require_read_committed();
    perform _reproq_check_arrays('reproq_release', p_result_ids, array[cardinality(p_lease_tokens)]);
    v_answers := _reproq_lock_attempts(p_result_ids, p_lease_tokens);
    v_answers := array(
        select case when u.answer = 'ok' and t.cancel_requested then 'cancelled'
                    when u.answer = 'already' and t.last_token = u.token and t.last_answer = 'ok' then 'succeeded'
                    else u.answer end
        from unnest(p_result_ids, p_lease_tokens, v_answers) with ordinality as u (id, token, answer, place)
        left join task_runs t on t.result_id = any (array[u.id])
        order by u.place);
    perform _reproq_requeue(array_agg(u.id), null, null, 'released')
    from unnest(p_result_ids, v_answers) as u (id, answer)
    where u.answer = 'ok'
    having count(*) > 0;
    perform _reproq_finish(array_agg(u.id), null, array_agg(
        jsonb_build_object('kind', 'cancelled', 'message', 'cancelled while it ran; its worker gave it back')))
    from unnest(p_result_ids, v_answers) as u (id, answer)
    where u.answer = 'cancelled'
    having count(*) > 0;
    return query
    select u.id, u.answer
    from unnest(p_result_ids, v_answers) with ordinality as u (id, answer, place)
    order by u.place;
end
$$;

revoke execute on function reproq_release(bigint[], uuid[]) from public;
comment on function reproq_release(bigint[], uuid[]) is
    'Releases running tasks, the attempt not charged: ok, cancelled, already, succeeded, lost or busy for each. @0.1.0';
