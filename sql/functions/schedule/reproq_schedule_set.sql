create or replace function reproq_schedule_set(
    p_name text,
    p_cron_expr text,
    p_task_path text,
    p_args jsonb default '[]',
    p_kwargs jsonb default '{}',
    p_queue_name text default 'default',
    p_priority integer default 0,
    p_max_attempts integer default 3,
    p_concurrency_key text default null,
    p_concurrency_limit integer default 0,
    p_time_zone text default 'UTC',
    p_misfire text default 'one',
    p_overlap text default 'allow',
    p_enabled boolean default true,
    p_options jsonb default '{}'
) returns text
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
-- Makes or changes a schedule: created, changed or unchanged. The next beat plans it: it reads cron_expr (an
-- expression that it cannot read is reported there and never runs). Setting it again never loses or repeats a
-- due run: see _reproq_schedule_written.
-- misfire: of runs missed while no beat ran: skip, one (the last), all (the last 100).
-- options: an object with any of lock_key, timeout_seconds, backoff_seconds, takes_context, as in reproq_enqueue_many.
-- overlap: while an earlier run is not final: allow, skip, queue_one (at most one waits).
-- Raises RQ001 on a bad argument, RQ002 on a task that could not be enqueued. Locks and writes the schedule's row,
-- writes the audit log, without what the task is given: operators see no payloads.
declare
    v_new periodic_tasks%rowtype;
    v_old periodic_tasks%rowtype;
begin
    -- Of cron_expr only the shape is checked; the beat, which computes it, decides.
    if coalesce(p_name, '') = '' or octet_length(p_name) > 512 then
        raise exception 'reproq_schedule_set: p_name must have 1 to 512 bytes'
            using errcode = 'RQ001', hint = 'Name the schedule, for example nightly-report.';
    elsif coalesce(p_cron_expr, '') !~ '^[[:space:]]*([^[:space:]]+[[:space:]]+){4}[^[:space:]]+[[:space:]]*$|^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$'
        or octet_length(p_cron_expr) > 1000 then
        raise exception 'reproq_schedule_set: p_cron_expr must have five fields, such as ''*/5 * * * *'', not %',
            coalesce(quote_literal(left(p_cron_expr, 60)), 'null')
            using errcode = 'RQ001', hint = 'Minute, hour, day of month, month, day of week; or @daily and the like.';
    elsif not exists (select from pg_timezone_names z where z.name = p_time_zone) then
        raise exception 'reproq_schedule_set: p_time_zone must be an IANA name such as Europe/Vienna, not %',
            coalesce(quote_literal(left(p_time_zone, 60)), 'null')
            using errcode = 'RQ001', hint = 'See: select name from pg_timezone_names';
    elsif coalesce(p_misfire, '') not in ('skip', 'one', 'all') then
        raise exception 'reproq_schedule_set: p_misfire must be skip, one or all'
            using errcode = 'RQ001', hint = 'What to do with runs that were missed: one makes up for the last of them.';
    elsif coalesce(p_overlap, '') not in ('allow', 'skip', 'queue_one') then
        raise exception 'reproq_schedule_set: p_overlap must be allow, skip or queue_one'
            using errcode = 'RQ001', hint = 'What to do while an earlier run has not ended.';
    elsif jsonb_typeof(coalesce(p_options, '{}')) <> 'object'
        or coalesce(p_options, '{}') - '{lock_key,timeout_seconds,backoff_seconds,takes_context}'::text[] <> '{}' then
        raise exception 'reproq_schedule_set: p_options must be an object with lock_key, timeout_seconds, backoff_seconds or takes_context'
            using errcode = 'RQ001', hint = 'Other options of a run have parameters of their own.';
    end if;
    perform _reproq_check_tasks('reproq_schedule_set', jsonb_build_array(jsonb_build_object(
        'task_path', p_task_path, 'args', coalesce(p_args, '[]'), 'kwargs', coalesce(p_kwargs, '{}'), 'queue_name', p_queue_name, 'priority', p_priority,
        'max_attempts', p_max_attempts, 'concurrency_key', p_concurrency_key, 'concurrency_limit', p_concurrency_limit)
        || coalesce(p_options, '{}')));
    select p.* into v_old from periodic_tasks p where p.name = p_name for no key update;
    insert into periodic_tasks as p (name, cron_expr, task_path, payload_json, queue_name, priority, max_attempts,
        concurrency_key, concurrency_limit, next_run_at, enabled, time_zone, misfire, overlap, options_json)
    values (p_name, p_cron_expr, p_task_path, jsonb_build_object('args', coalesce(p_args, '[]'), 'kwargs', coalesce(p_kwargs, '{}')),
        coalesce(p_queue_name, 'default'), coalesce(p_priority, 0), coalesce(p_max_attempts, 3), p_concurrency_key,
        coalesce(p_concurrency_limit, 0), reproq_now(), coalesce(p_enabled, true), p_time_zone, p_misfire, p_overlap,
        coalesce(p_options, '{}'))
    on conflict (name) do update
    set cron_expr = excluded.cron_expr, task_path = excluded.task_path, payload_json = excluded.payload_json,
        queue_name = excluded.queue_name, priority = excluded.priority, max_attempts = excluded.max_attempts,
        concurrency_key = excluded.concurrency_key, concurrency_limit = excluded.concurrency_limit,
        enabled = excluded.enabled, time_zone = excluded.time_zone, misfire = excluded.misfire,
        overlap = excluded.overlap, options_json = excluded.options_json, updated_at = reproq_now()
    where (p.cron_expr, p.task_path, p.payload_json, p.queue_name, p.priority, p.max_attempts, p.concurrency_key,
           p.concurrency_limit, p.enabled, p.time_zone, p.misfire, p.overlap, p.options_json)
        is distinct from
          (excluded.cron_expr, excluded.task_path, excluded.payload_json, excluded.queue_name, excluded.priority,
           excluded.max_attempts, excluded.concurrency_key, excluded.concurrency_limit, excluded.enabled,
           excluded.time_zone, excluded.misfire, excluded.overlap, excluded.options_json)
    returning p.* into v_new;
    if v_new.name is not null then
        perform _reproq_write_audit('schedule_set', to_jsonb(v_new) - array['created_at', 'updated_at', 'payload_json']
            || jsonb_build_object('payload_changed', v_new.payload_json is distinct from v_old.payload_json));
    end if;
    return case when v_new.name is null then 'unchanged' when v_old.name is null then 'created' else 'changed' end;
end
$$;

revoke execute on function reproq_schedule_set(text, text, text, jsonb, jsonb, text, integer, integer, text, integer, text, text, text, boolean, jsonb) from public;
comment on function reproq_schedule_set(text, text, text, jsonb, jsonb, text, integer, integer, text, integer, text, text, text, boolean, jsonb) is
    'Makes or changes a schedule: created, changed or unchanged. @0.1.0';
