create or replace function _reproq_task_path() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- Before a task is inserted or its spec or path written: fills task_path from spec_json, and refuses a path
-- that the spec does not name (what is checked must be what is executed). Raises RQ002.
begin
    if jsonb_typeof(new.spec_json) is distinct from 'object' then
        raise exception 'task_runs: spec_json must be an object'
            using errcode = 'RQ002', hint = 'Enqueue with reproq_enqueue.';
    end if;
    new.task_path := coalesce(nullif(new.task_path, ''), new.spec_json ->> 'task_path');
    if new.task_path is distinct from new.spec_json ->> 'task_path' then
        raise exception 'task_runs: task_path % is not the task_path of spec_json, %',
            quote_literal(left(new.task_path, 200)), coalesce(quote_literal(left(new.spec_json ->> 'task_path', 200)), 'null')
            using errcode = 'RQ002', hint = 'Leave task_path out; it is filled from spec_json.';
    end if;
    return new;
end
$$;

revoke execute on function _reproq_task_path() from public;
comment on function _reproq_task_path() is 'Trigger: fills task_path from spec_json and refuses another one. @0.1.0';
