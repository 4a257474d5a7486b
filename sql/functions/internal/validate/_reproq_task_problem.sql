create or replace function _reproq_task_problem(p_task jsonb) returns text
language sql stable parallel safe
as $$
-- What is wrong with one element of reproq_enqueue_many: names the key, what was found and the remedy; null when it can
-- be a task. JSON null counts as absent. One expression, so that it is inlined into the check of a whole array.
select case
    when jsonb_typeof(p_task) is distinct from 'object'
        then 'a task must be an object such as {"task_path": "app.tasks.send"}'
    when p_task - '{task_path,args,kwargs,queue_name,priority,run_after,delay,lock_key,concurrency_key,concurrency_limit,max_attempts,timeout_seconds,expires_at,takes_context,backoff_seconds,dedupe,unique_key,unique_for,unique_while,on_duplicate}'::text[] <> '{}'
        then 'unknown key ' || quote_literal(left(jsonb_path_query_first(
            p_task - '{task_path,args,kwargs,queue_name,priority,run_after,delay,lock_key,concurrency_key,concurrency_limit,max_attempts,timeout_seconds,expires_at,takes_context,backoff_seconds,dedupe,unique_key,unique_for,unique_while,on_duplicate}'::text[],
            '$.keyvalue().key') #>> '{}', 60))
            || '; there are task_path, args, kwargs, queue_name, priority, run_after, delay, lock_key, concurrency_key, concurrency_limit, max_attempts, timeout_seconds, expires_at, takes_context, backoff_seconds, dedupe, unique_key, unique_for, unique_while, on_duplicate'
    when jsonb_typeof(p_task -> 'task_path') not in ('string', 'null') then 'task_path must be text'
    when jsonb_typeof(p_task -> 'queue_name') not in ('string', 'null') then 'queue_name must be text'
    when coalesce(p_task ->> 'task_path', '') !~ '^[^.[:space:][:cntrl:]]+([.][^.[:space:][:cntrl:]]+)+$'
        then 'task_path must be a dotted path such as app.tasks.send, not '
             || coalesce(quote_literal(left(p_task ->> 'task_path', 60)), 'null')
    when octet_length(p_task ->> 'task_path') > 1024 then 'task_path must have at most 1024 bytes'
    when jsonb_typeof(p_task -> 'args') not in ('array', 'null') then 'args must be an array'
    when jsonb_typeof(p_task -> 'kwargs') not in ('object', 'null') then 'kwargs must be an object'
    when p_task ->> 'queue_name' = '' or octet_length(p_task ->> 'queue_name') > 512
        then 'queue_name must have 1 to 512 bytes'
    when not p_task ?| '{priority,run_after,delay,lock_key,concurrency_key,concurrency_limit,max_attempts,timeout_seconds,expires_at,takes_context,backoff_seconds,dedupe,unique_key,unique_for,unique_while,on_duplicate}'::text[]
        and octet_length(p_task::text) + 512 <= _reproq_max_spec_bytes()
        then null  -- most have none of the rest
    when jsonb_typeof(p_task -> 'lock_key') not in ('string', 'null') then 'lock_key must be text'
    when jsonb_typeof(p_task -> 'concurrency_key') not in ('string', 'null') then 'concurrency_key must be text'
    when not _reproq_is_integer(p_task -> 'priority', -2147483648, 2147483647)
        then 'priority must be an integer of 32 bits'
    when not _reproq_is_integer(p_task -> 'max_attempts', 1, 2147483647)
        then 'max_attempts must be an integer from 1 on'
    when not _reproq_is_integer(p_task -> 'timeout_seconds', 1, 2147483647)
        then 'timeout_seconds must be an integer from 1 on'
    when not _reproq_is_integer(p_task -> 'concurrency_limit', 0, 2147483647)
        then 'concurrency_limit must be an integer from 0 on; 0 = no limit'
    when p_task ->> 'lock_key' = '' or p_task ->> 'concurrency_key' = ''
        then 'lock_key and concurrency_key must not be empty; leave them out'
    when (p_task ->> 'concurrency_limit')::numeric > 0 and p_task ->> 'concurrency_key' is null
        then 'concurrency_limit needs a concurrency_key'
    when jsonb_typeof(p_task -> 'takes_context') not in ('boolean', 'null')
        or jsonb_typeof(p_task -> 'dedupe') not in ('boolean', 'null')
        then 'takes_context and dedupe must be true or false'
    when jsonb_typeof(p_task -> 'backoff_seconds') not in ('number', 'null')
        or (p_task ->> 'backoff_seconds')::numeric < 0
        then 'backoff_seconds must be a number from 0 on'
    when p_task ->> 'run_after' is not null and not _reproq_is_instant(p_task -> 'run_after')
        then 'run_after must be an instant with its time zone, between the years 1 and 9999, such as 2026-12-24T18:00:00+01:00; or say delay'
    when p_task ->> 'expires_at' is not null and not _reproq_is_instant(p_task -> 'expires_at')
        then 'expires_at must be an instant with its time zone, between the years 1 and 9999, such as 2026-12-24T18:00:00+01:00'
    when p_task ->> 'delay' is not null and _reproq_duration(p_task -> 'delay') is null
        then 'delay must be a duration from 0 to 100 years: a number of seconds, or text such as 5 minutes'
    when p_task ->> 'delay' is not null and p_task ->> 'run_after' is not null
        then 'delay and run_after both say when: leave one out'
    when p_task ->> 'unique_key' is null
        and coalesce(p_task ->> 'unique_for', p_task ->> 'unique_while', p_task ->> 'on_duplicate') is not null
        then 'unique_for, unique_while and on_duplicate need a unique_key'
    when jsonb_typeof(p_task -> 'unique_key') not in ('string', 'null')
        or p_task ->> 'unique_key' = '' or octet_length(p_task ->> 'unique_key') > 8192
        then 'unique_key must be text of 1 to 8192 bytes'
    when p_task ->> 'unique_key' is not null and (p_task ->> 'dedupe')::boolean
        then 'unique_key and dedupe both say what a duplicate is: leave one out'
    when p_task ->> 'unique_for' is not null and _reproq_duration(p_task -> 'unique_for') is null
        then 'unique_for must be a duration from 0 to 100 years: a number of seconds, or text such as 5 minutes'
    when p_task ->> 'unique_while' not in ('queued', 'active') then 'unique_while must be queued or active'
    when p_task ->> 'on_duplicate' not in ('keep', 'replace') then 'on_duplicate must be keep or replace'
    when octet_length(p_task::text) + 512 > _reproq_max_spec_bytes()
        and _reproq_spec_bytes(p_task) > _reproq_max_spec_bytes()
        then 'its spec has ' || _reproq_spec_bytes(p_task) || ' bytes, the limit is ' || _reproq_max_spec_bytes()
             || ' (setting reproq.max_spec_bytes): store large data elsewhere and pass its key or path in args'
end
$$;

revoke execute on function _reproq_task_problem(jsonb) from public;
comment on function _reproq_task_problem(jsonb) is 'What is wrong with an element of reproq_enqueue_many; null = nothing. @0.1.0';
