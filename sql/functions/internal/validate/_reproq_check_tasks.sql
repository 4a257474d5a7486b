create or replace function _reproq_check_tasks(p_function text, p_tasks jsonb) returns void
language plpgsql stable parallel safe
as $$
-- Raises RQ001 unless p_tasks is a JSON array, and RQ002 about the first element that cannot be a task, with its place
-- in DETAIL. One pass over the whole array.
declare
    v_problem text;
    v_place bigint;
begin
    if jsonb_typeof(p_tasks) is distinct from 'array' then
        raise exception '%: p_tasks must be a JSON array of tasks', p_function
            using errcode = 'RQ001', hint = 'Pass for example [{"task_path": "app.tasks.send", "args": [1]}].';
    end if;
    select c.problem, c.place into v_problem, v_place
    from (select _reproq_task_problem(e.task) as problem, e.place
          from jsonb_array_elements(p_tasks) with ordinality as e (task, place)) c
    where c.problem is not null
    limit 1;
    if found then
        raise exception 'cannot enqueue: %', v_problem
            using errcode = 'RQ002', detail = 'task ' || v_place || ' of the call';
    end if;
end
$$;

revoke execute on function _reproq_check_tasks(text, jsonb) from public;
comment on function _reproq_check_tasks(text, jsonb) is 'Raises RQ001 or RQ002 unless all elements of an array can be tasks, and says why. @0.1.0';
