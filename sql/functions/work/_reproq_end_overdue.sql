create or replace function _reproq_end_overdue(p_limit integer)
returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe
as $$
#variable_conflict use_column
-- Ends READY and WAITING tasks past expires_at (kind expired) or with a cancel request (kind cancelled).
-- Locks: _reproq_try_end; rows that another session holds are left to the next call.
declare
    v_now timestamptz := reproq_now();
    v_ids bigint[];
begin
    v_ids := array(
        (select t.result_id from task_runs t
         where t.status in ('READY', 'WAITING') and t.expires_at <= v_now
         order by t.expires_at
         limit p_limit)
        union
        (select t.result_id from task_runs t
         where t.status in ('READY', 'WAITING') and t.cancel_requested
         order by t.result_id
         limit p_limit));
    v_ids := array(
        select t.result_id from task_runs t
        where t.result_id = any (v_ids) and _reproq_try_end(t.result_id));
    with locked as materialized (
        select t.result_id, t.status, t.cancel_requested, t.expires_at from task_runs t
        where t.result_id = any (v_ids)
        order by t.result_id
        for no key update skip locked)
    select coalesce(array_agg(l.result_id), '{}') into v_ids from locked l
    where l.status in ('READY', 'WAITING') and (l.cancel_requested or l.expires_at <= v_now);
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
