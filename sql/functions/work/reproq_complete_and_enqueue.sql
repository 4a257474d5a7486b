create or replace function reproq_complete_and_enqueue(
    p_result_ids bigint[], p_lease_tokens uuid[], p_returns jsonb[], p_tasks jsonb[], p_logs_uris text[] default null,
    p_accounts jsonb[] default null
) returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
#variable_conflict use_column
-- As reproq_complete, and enqueues what each task asked for: p_tasks has an array of reproq_enqueue_many, or null, for each.
-- All in one transaction: tasks of an attempt that is not ok are not enqueued, so a repeated call enqueues nothing.
-- Raises RQ001 on arrays of different lengths, RQ002 on a bad task; then nothing is done.
-- Locks: those of reproq_complete, then those of reproq_enqueue_many.
declare
    v_tasks jsonb;
    v_answers text[];
begin
    perform _reproq_check_arrays('reproq_complete_and_enqueue', p_result_ids, array[cardinality(p_tasks)]);
    perform _reproq_check_tasks('reproq_enqueue_many', u.tasks) from unnest(p_tasks) as u (tasks) where u.tasks <> 'null';
    v_answers := array(
        select c.answer
        from reproq_complete(p_result_ids, p_lease_tokens, p_returns, p_logs_uris, p_accounts)
             with ordinality as c (result_id, answer, place)
        order by c.place);
    select jsonb_agg(e.value order by u.place, e.place) into v_tasks
    from unnest(p_tasks, v_answers) with ordinality as u (tasks, answer, place)
    cross join lateral jsonb_array_elements(u.tasks) with ordinality as e (value, place)
    where u.answer = 'ok' and u.tasks <> 'null';
    if v_tasks is not null then
        perform reproq_enqueue_many(v_tasks);
    end if;
    return query
    select u.id, u.answer from unnest(p_result_ids, v_answers) with ordinality as u (id, answer, place) order by u.place;
end
$$;

revoke execute on function reproq_complete_and_enqueue(bigint[], uuid[], jsonb[], jsonb[], text[], jsonb[]) from public;
comment on function reproq_complete_and_enqueue(bigint[], uuid[], jsonb[], jsonb[], text[], jsonb[]) is
    'Ends attempts that succeeded and enqueues the tasks that follow them, in one transaction: ok, already, lost or busy for each. @0.1.0';
