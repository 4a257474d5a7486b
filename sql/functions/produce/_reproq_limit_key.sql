create or replace function _reproq_limit_key(p_task_path text) returns text
language sql stable parallel safe
as $$
-- limit_key of a new task: task:<path> while that has a token bucket of its own, or was throttled lately;
-- else empty. Inlined.
select coalesce((select r.key from rate_limits r where r.key = 'task:' || p_task_path
                 and (r.tokens_per_second > 0 or r.throttled_until is not null)), '')
$$;

revoke execute on function _reproq_limit_key(text) from public;
comment on function _reproq_limit_key(text) is 'The label of a new task: its own token bucket, or empty. @0.1.0';
