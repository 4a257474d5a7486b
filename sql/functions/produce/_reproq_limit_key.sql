create or replace function _reproq_limit_key(p_task_path text) returns text
language sql stable parallel safe
as $$
-- limit_key of a new task: task:<path> while that has a token bucket of its own, else empty. Inlined.
select coalesce((select r.key from rate_limits r where r.key = 'task:' || p_task_path), '')
$$;

revoke execute on function _reproq_limit_key(text) from public;
comment on function _reproq_limit_key(text) is 'The label of a new task: its own token bucket, or empty. @0.1.0';
