create or replace function _reproq_reclaim_leases(p_limit integer)
returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe
as $$
#variable_conflict use_column
-- Tasks with an expired lease: the worker crashed or lost its database. The attempt stays charged.
-- READY after the task's backoff, four times as long from the second loss on (a crasher must not take its
-- neighbours with it again at once); FAILED when attempts are used up or a cancel is requested.
-- Goes on past what other sessions hold until p_limit tasks are done: held rows cost a look each and stop nothing.
-- Locks: keys and workflow rows of the first p_limit, waiting two seconds at most (_reproq_lock_shared): most are held for
-- a moment only. From then on it never waits: the tasks (skip locked), their keys (tries), then _reproq_try_end. A task
-- with a held key, chord or dependent is left to the next call, as are keyed tasks after the first hundred (the
-- server's lock table).
declare
    v_now timestamptz := reproq_now();
    v_task record;
    v_key text;
    v_held_keys text[] := '{}';
    v_held_workflows uuid[] := '{}';
    v_keyed integer := 0;
    v_again bigint[] := '{}';
    v_ended bigint[] := '{}';
begin
    perform _reproq_lock_shared(array_agg(e.result_id))
    from (select t.result_id from task_runs t
          where t.leased_until < v_now
          order by t.leased_until
          limit p_limit) e
    having count(*) > 0;
    for v_task in
        select t.result_id, t.workflow_id, t.attempts < t.max_attempts and not t.cancel_requested as has_attempts,
               array_remove(array['l:' || nullif(t.lock_key, ''), 'c:' || nullif(t.concurrency_key, '')], null) as keys
        from task_runs t
        where t.leased_until < v_now
        order by t.leased_until
        for no key update skip locked
    loop
        continue when v_task.keys && v_held_keys or v_task.keys <> '{}' and v_keyed >= 100
            or v_task.workflow_id = any (v_held_workflows) and not v_task.has_attempts;
        foreach v_key in array v_task.keys loop
            if not pg_try_advisory_xact_lock(_reproq_key_hash(v_key)) then
                v_held_keys := v_held_keys || v_key;
            end if;
        end loop;
        continue when v_task.keys && v_held_keys;
        v_keyed := v_keyed + (v_task.keys <> '{}')::integer;
        if v_task.has_attempts then
            v_again := v_again || v_task.result_id;
        elsif _reproq_try_end(v_task.result_id) then
            v_ended := v_ended || v_task.result_id;
        else
            v_held_workflows := v_held_workflows || v_task.workflow_id;
        end if;
        exit when cardinality(v_again) + cardinality(v_ended) >= p_limit;
    end loop;

    perform _reproq_requeue(array_agg(t.result_id), array_agg(_reproq_lost_error(t)), array_agg(
        v_now + _reproq_backoff(t.spec_json, t.attempts, case when t.lost_count >= 1 then 4 else 1 end)), 'lost')
    from task_runs t
    where t.result_id = any (v_again)
    having count(*) > 0;
    perform _reproq_finish(array_agg(t.result_id), null, array_agg(_reproq_lost_error(t)))
    from task_runs t
    where t.result_id = any (v_ended)
    having count(*) > 0;

    return query
    select u.id, 'ready'::text from unnest(v_again) as u (id)
    union all
    select u.id, 'failed'::text from unnest(v_ended) as u (id);
end
$$;

revoke execute on function _reproq_reclaim_leases(integer) from public;
comment on function _reproq_reclaim_leases(integer) is 'Reclaims tasks with an expired lease; part of reproq_reclaim. @0.1.0';
