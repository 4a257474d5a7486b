create or replace function _reproq_insert_workflow(p_function text, p_tasks jsonb, p_workflow_id uuid, p_kind text)
returns bigint[]
language plpgsql volatile parallel unsafe
as $$
-- Inserts the tasks of a workflow in one statement and returns their ids, in order. p_kind: chain, group or chord.
-- A step has a random hash and no unique key: it is never a duplicate. Raises RQ001, RQ002.
declare
    v_place bigint;
    v_ids bigint[];
    v_sequence regclass := pg_get_serial_sequence('task_runs', 'result_id');
begin
    perform _reproq_check_tasks(p_function, p_tasks);
    select e.place into v_place
    from jsonb_array_elements(p_tasks) with ordinality as e (task, place)
    where (e.task ->> 'dedupe')::boolean or e.task ->> 'unique_key' is not null
    limit 1;
    if found then
        raise exception 'cannot enqueue: a task of a workflow is always a new one: leave dedupe and unique_key out'
            using errcode = 'RQ002', detail = 'task ' || v_place || ' of the call',
                  hint = 'Enqueue one task with a unique_key, and let it enqueue the workflow.';
    end if;
    v_ids := array(select nextval(v_sequence) from generate_series(1, jsonb_array_length(p_tasks)));
    perform _reproq_insert_tasks(p_tasks, v_ids, reproq_now(), p_kind, p_workflow_id);
    return v_ids;
end
$$;

revoke execute on function _reproq_insert_workflow(text, jsonb, uuid, text) from public;
comment on function _reproq_insert_workflow(text, jsonb, uuid, text) is 'Inserts the tasks of a chain, group or chord. @0.1.0';
