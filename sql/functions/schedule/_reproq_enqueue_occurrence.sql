create or replace function _reproq_enqueue_occurrence(p_schedule periodic_tasks, p_at timestamptz)
returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe
as $$
#variable_conflict use_column
-- Enqueues one occurrence of a schedule: enqueued, already (it was before), overlap (an earlier run has not ended and
-- the policy says not to add one). The spec carries periodic_name and scheduled_at. Occurrences are never
-- duplicates.
-- payload_json: {"args": [...], "kwargs": {...}}; an array is args, another object is kwargs.
declare
    v_task jsonb;
    v_id bigint;
    v_payload jsonb := coalesce(p_schedule.payload_json, '{}');
    v_shape text := jsonb_typeof(v_payload);
begin
    if v_shape = 'object' and v_payload - 'args' - 'kwargs' = '{}' then
        v_shape := 'call';
    end if;
    insert into periodic_occurrences (name, scheduled_at) values (p_schedule.name, p_at) on conflict do nothing;
    if not found then
        return query select o.result_id, 'already'::text from periodic_occurrences o
        where o.name = p_schedule.name and o.scheduled_at = p_at;
        return;
    end if;
    -- Runs that have not ended, counted among the latest 100 occurrences.
    if p_schedule.overlap <> 'allow' and (
        select count(*)
        from (select o.result_id from periodic_occurrences o
              where o.name = p_schedule.name and o.result_id is not null
              order by o.scheduled_at desc limit 100) o
        join task_runs t on t.result_id = any (array[o.result_id])
        where t.finished_at is null) > (case p_schedule.overlap when 'skip' then 0 else 1 end) then
        return query select null::bigint, 'overlap'::text;
        return;
    end if;
    v_task := jsonb_build_object(
        'task_path', p_schedule.task_path, 'queue_name', p_schedule.queue_name, 'priority', p_schedule.priority,
        'max_attempts', greatest(p_schedule.max_attempts, 1), 'concurrency_key', nullif(p_schedule.concurrency_key, ''),
        'concurrency_limit', greatest(p_schedule.concurrency_limit, 0),
        'args', case v_shape when 'array' then v_payload when 'call' then coalesce(v_payload -> 'args', '[]') else '[]' end,
        'kwargs', case v_shape when 'object' then v_payload when 'call' then coalesce(v_payload -> 'kwargs', '{}') else '{}' end)
        || p_schedule.options_json;
    v_id := nextval(pg_get_serial_sequence('task_runs', 'result_id'));
    perform _reproq_insert_tasks(jsonb_build_array(v_task), array[v_id], reproq_now(), p_more => jsonb_build_object(
        'periodic_name', p_schedule.name, 'scheduled_at',
        replace(to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00'), '.000000', '')));
    update periodic_occurrences o set result_id = v_id where o.name = p_schedule.name and o.scheduled_at = p_at;
    return query select v_id, 'enqueued'::text;
end
$$;

revoke execute on function _reproq_enqueue_occurrence(periodic_tasks, timestamptz) from public;
comment on function _reproq_enqueue_occurrence(periodic_tasks, timestamptz) is
    'Enqueues one occurrence of a schedule, once: enqueued, already or overlap. @0.1.0';
