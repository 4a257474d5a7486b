create or replace function reproq_steps_done(
    p_result_id bigint, p_lease_token uuid, p_after text default '', p_max_bytes integer default 1048576
) returns table (answer text, steps jsonb, last_name text)
language plpgsql stable parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Stored steps of a running task, page by page, in the order of their names. One row: answer (ok, or lost: the fence does
-- not hold the task), steps (an object, name to value: those after p_after, about p_max_bytes of them, at least one),
-- last_name (what to pass as p_after for the next page; null = this is the last one). Takes no lock, writes nothing.
declare
    v_step record;
    v_texts text[] := '{}';
    v_bytes bigint := 0;
    v_last text;  -- read so far
    v_next text;
begin
    if not exists (select from task_runs t where t.result_id = p_result_id and t.lease_token = p_lease_token) then
        return query select 'lost'::text, '{}'::jsonb, null::text;
        return;
    end if;
    for v_step in
        select s.name, to_json(s.name) || ':' || coalesce(s.value, 'null') as pair
        from reproq_steps s
        where s.result_id = p_result_id and s.name > coalesce(p_after, '')
        order by s.result_id, s.name
    loop
        if v_bytes > 0 and v_bytes + octet_length(v_step.pair) > p_max_bytes then
            v_next := v_last;
            exit;
        end if;
        v_last := v_step.name;
        v_texts := v_texts || v_step.pair;
        v_bytes := v_bytes + octet_length(v_step.pair);
    end loop;
    return query select 'ok'::text, ('{' || array_to_string(v_texts, ',') || '}')::jsonb, v_next;
end
$$;

revoke execute on function reproq_steps_done(bigint, uuid, text, integer) from public;
comment on function reproq_steps_done(bigint, uuid, text, integer) is
    'Stored steps of a running task, page by page; for the attempt that shows its fence. @0.1.0';
