create or replace function _reproq_end_overdue(p_limit integer)
returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe
as $$
#variable_conflict use_column
-- Ends READY and WAITING tasks past expires_at (kind expired) or with a cancel request (kind cancelled), p_limit of
-- each kind. Goes on past what other sessions hold: held rows cost a look each and stop nothing.
-- Locks: the tasks (skip locked), then _reproq_try_end. Never waits: a task with a held chord or dependent is left to
-- the next call.
declare
    v_now timestamptz := reproq_now();
    v_expired refcursor;
    v_cancelled refcursor;
    v_kind refcursor;
    v_task record;
    v_held_workflows uuid[] := '{}';
    v_ids bigint[] := '{}';
    v_more bigint[];
begin
    open v_expired for
        select t.result_id, t.workflow_id from task_runs t
        where t.status in ('READY', 'WAITING') and t.expires_at <= v_now
        order by t.expires_at
        for no key update skip locked;
    open v_cancelled for
        select t.result_id, t.workflow_id from task_runs t
        where t.status in ('READY', 'WAITING') and t.cancel_requested
        order by t.result_id
        for no key update skip locked;
    foreach v_kind in array array[v_expired, v_cancelled] loop
        v_more := '{}';
        while cardinality(v_more) < p_limit loop
            fetch v_kind into v_task;
            exit when not found;
            continue when v_task.result_id = any (v_ids) or v_task.workflow_id = any (v_held_workflows);
            if _reproq_try_end(v_task.result_id) then
                v_more := v_more || v_task.result_id;
            else
                v_held_workflows := v_held_workflows || v_task.workflow_id;
            end if;
        end loop;
        close v_kind;
        v_ids := v_ids || v_more;
    end loop;
    if cardinality(v_ids) > 0 then
        perform _reproq_finish(array_agg(t.result_id), null, array_agg(case when t.cancel_requested
            then jsonb_build_object('kind', 'cancelled', 'message', 'cancelled before it started')
            else jsonb_build_object('kind', 'expired', 'message', 'not started before expires_at') end))
        from task_runs t
        where t.result_id = any (v_ids);
    end if;
    return query select u.id, 'failed'::text from unnest(v_ids) as u (id);
end
$$;

revoke execute on function _reproq_end_overdue(integer) from public;
comment on function _reproq_end_overdue(integer) is
    'Ends tasks that expired or were cancelled before they started; part of reproq_reclaim. @0.1.0';
