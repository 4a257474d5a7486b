create or replace function _reproq_reclaim_leases(p_limit integer)
returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe
as $$
#variable_conflict use_column
-- Tasks with an expired lease: the worker crashed or lost its database. The attempt stays charged.
-- READY after the task's backoff, four times as long from the second loss on (a crasher must not take its
-- neighbours with it again at once); FAILED when attempts are used up or a cancel is requested.
-- Locks: keys, workflow rows, then the tasks by id (skip locked), status and lease checked again; a task that ends,
-- with dependents that another session holds, is left to the next call.
declare
    v_now timestamptz := reproq_now();
    v_ids bigint[];
    v_left bigint[];
    v_again bigint[];
begin
    select array_agg(e.result_id order by e.result_id) into v_ids
    from (select t.result_id from task_runs t
          where t.leased_until < v_now
          order by t.leased_until
          limit p_limit) e;
    if v_ids is null then
        return;
    end if;
    v_left := _reproq_lock_shared(v_ids);
    with locked as materialized (
        select t.result_id, t.leased_until from task_runs t
        where t.result_id = any (v_ids) and t.result_id <> all (v_left)
        order by t.result_id
        for no key update skip locked)
    select coalesce(array_agg(l.result_id), '{}') into v_ids from locked l where l.leased_until < v_now;

    v_again := array(
        select t.result_id from task_runs t
        where t.result_id = any (v_ids) and t.attempts < t.max_attempts and not t.cancel_requested);
    v_ids := v_again || array(
        select t.result_id from task_runs t
        where t.result_id = any (v_ids) and t.result_id <> all (v_again) and _reproq_try_end(t.result_id));

    perform _reproq_requeue(array_agg(t.result_id), array_agg(_reproq_lost_error(t)), array_agg(
        v_now + _reproq_backoff(t.spec_json, t.attempts, case when t.lost_count >= 1 then 4 else 1 end)), 'lost')
    from task_runs t
    where t.result_id = any (v_again)
    having count(*) > 0;
    perform _reproq_finish(array_agg(t.result_id), null, array_agg(_reproq_lost_error(t)))
    from task_runs t
    where t.result_id = any (v_ids) and t.result_id <> all (v_again)
    having count(*) > 0;

    return query
    select u.id, case when u.id = any (v_again) then 'ready' else 'failed' end
    from unnest(v_ids) as u (id);
end
$$;

revoke execute on function _reproq_reclaim_leases(integer) from public;
comment on function _reproq_reclaim_leases(integer) is 'Reclaims tasks with an expired lease; part of reproq_reclaim. @0.1.0';
