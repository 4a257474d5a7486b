create or replace function _reproq_check_task(p_task jsonb, p_place bigint) returns void
language plpgsql stable parallel safe
as $$
-- One element of reproq_enqueue_many. Raises RQ002 that names the key, what was found and the remedy; DETAIL has
-- the element's place. JSON null counts as absent.
declare
    v_keys constant text[] := array['task_path', 'args', 'kwargs', 'queue_name', 'priority', 'run_after', 'lock_key',
        'concurrency_key', 'concurrency_limit', 'max_attempts', 'timeout_seconds', 'expires_at', 'takes_context',
        'dedupe', 'backoff_seconds'];
    v_problem text;
    v_key text;
    v_not_text text;
begin
    if jsonb_typeof(p_task) is distinct from 'object' then
        v_problem := 'a task must be an object such as {"task_path": "app.tasks.send"}';
    else
        select k.key into v_key from jsonb_object_keys(p_task) as k (key)
        where k.key <> all (v_keys)
        order by k.key limit 1;
        select k.key into v_not_text
        from unnest(array['task_path', 'queue_name', 'lock_key', 'concurrency_key']) as k (key)
        where jsonb_typeof(p_task -> k.key) not in ('string', 'null')
        limit 1;
        v_problem := case
            when v_key is not null then 'unknown key ' || quote_literal(left(v_key, 60))
                || '; there are ' || array_to_string(v_keys, ', ')
            when v_not_text is not null then v_not_text || ' must be text'
            when coalesce(p_task ->> 'task_path', '') !~ '^[^.[:space:][:cntrl:]]+([.][^.[:space:][:cntrl:]]+)+$'
                then 'task_path must be a dotted path such as app.tasks.send, not ' || coalesce(quote_literal(left(p_task ->> 'task_path', 60)), 'null')
            when octet_length(p_task ->> 'task_path') > 1024 then 'task_path must have at most 1024 bytes'
            when jsonb_typeof(p_task -> 'args') not in ('array', 'null') then 'args must be an array'
            when jsonb_typeof(p_task -> 'kwargs') not in ('object', 'null') then 'kwargs must be an object'
            when p_task ->> 'queue_name' = '' or octet_length(p_task ->> 'queue_name') > 512
                then 'queue_name must have 1 to 512 bytes'
            when not _reproq_is_integer(p_task -> 'priority', -2147483648, 2147483647)
                then 'priority must be an integer of 32 bits'
            when not _reproq_is_integer(p_task -> 'max_attempts', 1, 2147483647) then 'max_attempts must be an integer from 1 on'
            when not _reproq_is_integer(p_task -> 'timeout_seconds', 1, 2147483647) then 'timeout_seconds must be an integer from 1 on'
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
                or (p_task ->> 'backoff_seconds')::numeric < 0 then 'backoff_seconds must be a number from 0 on'
            when jsonb_typeof(p_task -> 'run_after') <> 'null' and not _reproq_is_instant(p_task -> 'run_after')
                then 'run_after must be an instant between the years 1 and 9999'
            when jsonb_typeof(p_task -> 'expires_at') <> 'null' and not _reproq_is_instant(p_task -> 'expires_at')
                then 'expires_at must be an instant between the years 1 and 9999'
            end;
    end if;
    if v_problem is not null then
        raise exception 'cannot enqueue: %', v_problem
            using errcode = 'RQ002', detail = 'task ' || p_place || ' of the call';
    end if;
end
$$;

revoke execute on function _reproq_check_task(jsonb, bigint) from public;
comment on function _reproq_check_task(jsonb, bigint) is 'Raises RQ002 on a task that cannot be enqueued, and says why. @0.1.0';
