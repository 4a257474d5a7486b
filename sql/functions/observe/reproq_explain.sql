create or replace function reproq_explain(p_result_id bigint)
returns table (blocks boolean, reason text, detail text, until timestamptz, remedy text)
language plpgsql stable parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Why a task is not running now: one row per reason, the ones that block it first. blocks: a claim for its queue
-- would not start it; when no row blocks, the next claim that reaches it will. until: when this reason ends by
-- itself, if that is known. remedy: the statement that would change it. Takes no lock, writes nothing.
declare
    v_task task_runs%rowtype;
    v_now timestamptz := reproq_now();
begin
    select t.* into v_task from task_runs t where t.result_id = p_result_id;
    if not found then
        return query select true, 'missing', 'there is no task ' || p_result_id, null::timestamptz, null::text;
    elsif v_task.finished_at is not null then
        return query select * from _reproq_explain_ended(v_task);
    elsif v_task.status = 'RUNNING' then
        return query select true, 'running', 'attempt ' || v_task.attempts || ' runs on worker ' || coalesce(v_task.leased_by, '?')
            || case when v_task.cancel_requested then '; its cancel is requested' else '' end,
            v_task.leased_until, 'select reproq_cancel(' || p_result_id || ')';
    elsif v_task.status = 'WAITING' then
        return query select * from _reproq_explain_waiting(v_task);
    else
        return query
        select e.* from _reproq_explain_ready(v_task, v_now) e
        order by e.blocks desc;
    end if;
end
$$;

revoke execute on function reproq_explain(bigint) from public;
comment on function reproq_explain(bigint) is
    'Why a task is not running now: a row a reason, what blocks first; until when, and the statement (remedy) that would change it. @0.1.0';
