create or replace function _reproq_insert_workflow(p_function text, p_tasks jsonb, p_workflow_id uuid, p_kind text)
returns bigint[]
language plpgsql volatile parallel unsafe
as $$
-- Inserts the tasks of a workflow in one statement and returns their ids, in order. p_kind: chain, group or chord.
-- A step has a random hash and no unique key: it is never a duplicate. A delay is for tasks that start at once: others
-- start when those before them have succeeded. Raises RQ001, RQ002.
declare
    v_place bigint;
    v_delayed boolean;
    v_ids bigint[];
    v_sequence regclass := pg_get_serial_sequence('task_runs', 'result_id');
begin
    perform _reproq_check_tasks(p_function, p_tasks);
    select e.place, e.task ->> 'delay' is not null into v_place, v_delayed
    from jsonb_array_elements(p_tasks) with ordinality as e (task, place)
    where coalesce((e.task ->> 'dedupe')::boolean, false) or e.task ->> 'unique_key' is not null
       or e.task ->> 'delay' is not null and (
           p_kind = 'chain' and e.place > 1 or p_kind = 'chord' and e.place > 1 and e.place = jsonb_array_length(p_tasks))
    limit 1;
    if v_delayed then
        raise exception 'cannot enqueue: delay is for tasks that wait for no other'
            using errcode = 'RQ002', detail = 'task ' || v_place || ' of the call',
                  hint = 'This one starts when those before it have succeeded. Leave delay out.';
    elsif found then
        raise exception 'cannot enqueue: a task of a workflow is always a new one: leave dedupe and unique_key out'
            using errcode = 'RQ002', detail = 'task ' || v_place || ' of the call',
                  hint = 'Enqueue a single task with a unique_key that enqueues the workflow.';
    end if;
    v_ids := array(select nextval(v_sequence) from generate_series(1, jsonb_array_length(p_tasks)));
    perform _reproq_insert_tasks(p_tasks, v_ids, reproq_now(), p_kind, p_workflow_id);
    return v_ids;
end
$$;

revoke execute on function _reproq_insert_workflow(text, jsonb, uuid, text) from public;
comment on function _reproq_insert_workflow(text, jsonb, uuid, text) is 'Inserts the tasks of a chain, group or chord. @0.1.0';
