create or replace function _reproq_task_label() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- Before a task is inserted: its limit_key, so that a task with a token bucket of its own starts in a stream
-- of its own.
begin
    new.limit_key := coalesce((
        select r.key from rate_limits r
        where r.key = 'task:' || new.task_path and r.tokens_per_second > 0), '');
    return new;
end
$$;

revoke execute on function _reproq_task_label() from public;
comment on function _reproq_task_label() is 'Trigger: labels a new task with its own token bucket. @0.1.0';
