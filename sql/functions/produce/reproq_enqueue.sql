create or replace function reproq_enqueue(
    p_task_path text,
    p_args jsonb default '[]',
    p_kwargs jsonb default '{}',
    p_queue_name text default 'default',
    p_priority integer default 0,
    p_run_after timestamptz default null,
    p_lock_key text default null,
    p_concurrency_key text default null,
    p_concurrency_limit integer default 0,
    p_max_attempts integer default 3,
    p_timeout_seconds integer default 900,
    p_expires_at timestamptz default null,
    p_takes_context boolean default false,
    p_dedupe boolean default false,
    p_backoff_seconds double precision default null,
    p_delay interval default null,
    p_unique_key text default null,
    p_unique_for interval default null,
    p_unique_while text default 'queued',
    p_on_duplicate text default 'keep'
) returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- Enqueues one task in the caller's transaction and returns it; or the one that p_dedupe (_reproq_enqueue_deduped) or
-- p_unique_key (_reproq_enqueue_unique) finds. A call that asks for neither hashes nothing and waits for nothing.
-- One expression tells arguments that are right. Others, nulls among them, go to reproq_enqueue_many, which fills in
-- defaults or raises RQ002 with the reason. Locks: none but theirs.
declare
    v_now timestamptz := reproq_now();
    v_is_right boolean;
    v_is_plain boolean;
    v_run_after timestamptz;
    v_spec jsonb;
    v_blocked_on text := '';
    v_id bigint;
begin
    v_is_right := p_task_path ~ '^[^.[:space:][:cntrl:]]+([.][^.[:space:][:cntrl:]]+)+$' and octet_length(p_task_path) <= 1024
        and jsonb_typeof(p_args) = 'array' and jsonb_typeof(p_kwargs) = 'object'
        and p_queue_name <> '' and octet_length(p_queue_name) <= 512
        and p_priority is not null and p_takes_context is not null and p_dedupe is not null
        and p_max_attempts >= 1 and p_timeout_seconds >= 1;
    if num_nonnulls(p_run_after, p_delay, p_lock_key, p_concurrency_key, p_expires_at, p_backoff_seconds, p_unique_key,
            p_unique_for) = 0
        and p_concurrency_limit = 0 and p_unique_while = 'queued' and p_on_duplicate = 'keep'
    then
        v_is_plain := true;
    else
        v_is_plain := false;
        v_is_right := v_is_right
            and (p_lock_key <> '') is not false and (p_concurrency_key <> '') is not false
            and (p_concurrency_limit = 0 or p_concurrency_limit > 0 and p_concurrency_key is not null)
            and (p_run_after between '0001-01-02 00:00+00' and '9999-12-30 00:00+00') is not false
            and (p_expires_at between '0001-01-02 00:00+00' and '9999-12-30 00:00+00') is not false
            and (p_backoff_seconds >= 0 and p_backoff_seconds < 'infinity') is not false
            and (p_delay is null or p_run_after is null and p_delay between interval '0' and interval '100 years')
            and (p_unique_key is null and p_unique_for is null and p_unique_while = 'queued' and p_on_duplicate = 'keep'
                 or p_unique_key <> '' and octet_length(p_unique_key) <= 8192 and not p_dedupe
                    and (p_unique_for between interval '0' and interval '100 years') is not false
                    and p_unique_while in ('queued', 'active') and p_on_duplicate in ('keep', 'replace'));
        v_run_after := coalesce(p_run_after, v_now + p_delay);
    end if;
    if v_is_right and v_is_plain and p_max_attempts = 3 and p_timeout_seconds = 900 and not p_takes_context then
        v_spec := _reproq_build_plain_spec(p_task_path, p_args, p_kwargs, p_queue_name, p_priority);
    elsif v_is_right then
        v_spec := _reproq_build_spec(p_task_path, p_args, p_kwargs, p_queue_name, p_priority, v_run_after, p_lock_key,
            p_concurrency_key, p_concurrency_limit, p_max_attempts, p_timeout_seconds, p_takes_context,
            to_jsonb(p_backoff_seconds));
    end if;
    if v_spec is null or octet_length(v_spec::text) > _reproq_max_spec_bytes() then
        return (
            select m.result_id
            from reproq_enqueue_many(jsonb_build_array(jsonb_build_object(
                'task_path', p_task_path, 'args', p_args, 'kwargs', p_kwargs, 'queue_name', p_queue_name,
                'priority', p_priority, 'run_after', p_run_after, 'delay', p_delay, 'lock_key', p_lock_key,
                'concurrency_key', p_concurrency_key, 'concurrency_limit', p_concurrency_limit,
                'max_attempts', p_max_attempts, 'timeout_seconds', p_timeout_seconds, 'expires_at', p_expires_at,
                'takes_context', p_takes_context, 'backoff_seconds', p_backoff_seconds, 'dedupe', p_dedupe,
                'unique_key', p_unique_key, 'unique_for', p_unique_for,
                'unique_while', nullif(p_unique_while, 'queued'), 'on_duplicate', nullif(p_on_duplicate, 'keep')))) m);
    end if;
    if p_dedupe then
        return _reproq_enqueue_deduped(nextval(pg_get_serial_sequence('task_runs', 'result_id')), v_spec,
            _reproq_task_hash(v_spec), v_run_after, p_expires_at, v_now);
    elsif p_unique_key is not null then
        return _reproq_enqueue_unique(nextval(pg_get_serial_sequence('task_runs', 'result_id')), v_spec, v_run_after,
            p_expires_at, p_unique_key, p_unique_for, p_unique_while, p_on_duplicate, v_now);
    end if;
    if coalesce(p_lock_key, p_concurrency_key) is not null then
        v_blocked_on := _reproq_blocked_from_start(p_queue_name, _reproq_limit_key(p_task_path), p_priority,
            greatest(v_now, v_run_after), p_lock_key, p_concurrency_key, p_concurrency_limit, v_now);
    end if;
    insert into task_runs (queue_name, priority, run_after, spec_json, spec_hash, task_path, status, enqueued_at,
        updated_at, max_attempts, timeout_seconds, lock_key, concurrency_key, concurrency_limit, expires_at,
        limit_key, blocked_on, revision)
    values (p_queue_name, p_priority, v_run_after, v_spec, replace(gen_random_uuid()::text, '-', ''), p_task_path,
        'READY', v_now, v_now, p_max_attempts, p_timeout_seconds, p_lock_key, p_concurrency_key, p_concurrency_limit,
        p_expires_at, _reproq_limit_key(p_task_path), v_blocked_on, 1)
    returning result_id into v_id;
    perform _reproq_notify(p_queue_name);
    return v_id;
end
$$;

revoke execute on function reproq_enqueue(text, jsonb, jsonb, text, integer, timestamptz, text, text, integer, integer, integer, timestamptz, boolean, boolean, double precision, interval, text, interval, text, text) from public;
comment on function reproq_enqueue(text, jsonb, jsonb, text, integer, timestamptz, text, text, integer, integer, integer, timestamptz, boolean, boolean, double precision, interval, text, interval, text, text) is
    'Enqueues a task in the caller''s transaction; result_id of the new task, or of the one that p_dedupe or p_unique_key found. @0.1.0';
