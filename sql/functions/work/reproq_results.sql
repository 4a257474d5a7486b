create or replace function reproq_results(
    p_result_id bigint, p_lease_token uuid, p_after bigint default 0, p_max_bytes integer default 1048576
) returns table (answer text, expected integer, results jsonb, last_id bigint)
language plpgsql stable parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Results of what a running task waited for, page by page: of a callback those of the members of its chord, in the order
-- of their ids; of a step of a chain that of the step before it; else none. One row: answer (ok, or lost: the fence does
-- not hold the task), expected (results in all pages), results (a JSON array: those of members after p_after, about
-- p_max_bytes of them, at least one), last_id (what to pass as p_after for the next page; null = this is the last one).
-- Takes no lock, writes nothing.
declare
    v_task task_runs%rowtype;
    v_expected integer;
    v_member record;
    v_texts text[] := '{}';
    v_bytes bigint := 0;
    v_last bigint;  -- read so far
    v_next bigint;
begin
    select t.* into v_task from task_runs t where t.result_id = p_result_id;
    if not found or v_task.lease_token is distinct from p_lease_token or p_lease_token is null then
        return query select 'lost'::text, 0, '[]'::jsonb, null::bigint;
        return;
    end if;
    if v_task.workflow_id is not null then
        select w.expected_count into v_expected
        from workflow_runs w
        where w.workflow_id = v_task.workflow_id and w.callback_result_id = p_result_id;
    end if;
    if v_expected is null and v_task.parent_id is not null then
        return query
        select 'ok'::text, 1, coalesce(jsonb_agg(coalesce(t.return_json, 'null')), '[]'), null::bigint
        from task_runs t
        where t.result_id = v_task.parent_id and t.status || '' = 'SUCCESSFUL';
        return;
    end if;
    for v_member in
        select t.result_id, t.return_json::text as value
        from task_runs t
        where t.workflow_id = v_task.workflow_id and t.status = 'SUCCESSFUL' and t.result_id > coalesce(p_after, 0)
          and v_expected is not null
        order by t.workflow_id, t.status, t.result_id
    loop
        continue when v_member.result_id = p_result_id;
        if v_bytes > 0 and v_bytes + octet_length(v_member.value) > p_max_bytes then
            v_next := v_last;
            exit;
        end if;
        v_last := v_member.result_id;
        v_texts := v_texts || coalesce(v_member.value, 'null');
        v_bytes := v_bytes + octet_length(coalesce(v_member.value, 'null'));
    end loop;
    return query select 'ok'::text, coalesce(v_expected, 0), ('[' || array_to_string(v_texts, ',') || ']')::jsonb, v_next;
end
$$;

revoke execute on function reproq_results(bigint, uuid, bigint, integer) from public;
comment on function reproq_results(bigint, uuid, bigint, integer) is
    'Results of the tasks that a running task waited for (its chord, or the step before it), page by page; for the attempt that shows its fence. @0.1.0';
