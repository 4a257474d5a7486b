create or replace function _reproq_check_task_array(p_function text, p_tasks jsonb) returns void
language plpgsql immutable parallel safe
as $$
-- Raises RQ001 unless p_tasks is a JSON array.
begin
    if jsonb_typeof(p_tasks) is distinct from 'array' then
        raise exception '%: p_tasks must be a JSON array of tasks', p_function
            using errcode = 'RQ001', hint = 'Pass for example [{"task_path": "app.tasks.send", "args": [1]}].';
    end if;
end
$$;

revoke execute on function _reproq_check_task_array(text, jsonb) from public;
comment on function _reproq_check_task_array(text, jsonb) is 'Raises RQ001 unless tasks come as a JSON array. @0.1.0';
