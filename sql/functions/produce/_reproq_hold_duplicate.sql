create or replace function _reproq_hold_duplicate(
    p_result_id bigint, p_expires_at timestamptz, p_now timestamptz,
    p_spec jsonb default null, p_run_after timestamptz default null
) returns boolean
language plpgsql volatile parallel unsafe
as $$
-- Holds a queued duplicate until the caller's transaction ends: claims skip locked rows, so the task cannot start before
-- the data that it is about is committed. False when it is queued no longer, or is expired or cancelled by now.
-- It expires as late as the longer of both; with p_spec it gets the arguments, priority and time of the new one. Only
-- that notifies: a worker that met the held row looks again soon (reproq_next_wake).
-- Locks: the task; shared when nothing is written, so that producers do not wait for each other.
declare
    v_queue_name text;
    v_expires_at timestamptz;
begin
    select t.expires_at into v_expires_at from task_runs t where t.result_id = p_result_id;
    if p_spec is null and coalesce(v_expires_at, 'infinity') >= coalesce(p_expires_at, 'infinity') then
        select t.queue_name into v_queue_name
        from task_runs t
        where t.result_id = p_result_id and t.status || '' in ('READY', 'WAITING') and not t.cancel_requested
          and coalesce(t.expires_at, 'infinity') > p_now
        for share;
    else
        update task_runs t
        set expires_at = nullif(greatest(coalesce(t.expires_at, 'infinity'), coalesce(p_expires_at, 'infinity')), 'infinity'),
            spec_json = case when p_spec is null then t.spec_json else t.spec_json || jsonb_build_object(
                'args', p_spec -> 'args', 'kwargs', p_spec -> 'kwargs',
                'priority', p_spec -> 'priority', 'run_after', p_spec -> 'run_after') end,
            priority = case when p_spec is null then t.priority else (p_spec -> 'priority')::integer end,
            run_after = case when p_spec is null then t.run_after else p_run_after end,
            blocked_on = case when p_spec is null then t.blocked_on else '' end,
            updated_at = p_now, revision = t.revision + 1
        where t.result_id = p_result_id and t.status || '' in ('READY', 'WAITING') and not t.cancel_requested
          and coalesce(t.expires_at, 'infinity') > p_now
        returning t.queue_name into v_queue_name;
    end if;
    if found and p_spec is not null then
        perform _reproq_notify(v_queue_name);
    end if;
    return v_queue_name is not null;
end
$$;

revoke execute on function _reproq_hold_duplicate(bigint, timestamptz, timestamptz, jsonb, timestamptz) from public;
comment on function _reproq_hold_duplicate(bigint, timestamptz, timestamptz, jsonb, timestamptz) is
    'Holds a queued duplicate until its producer commits, and lets it take over what the new task says. @0.1.0';
