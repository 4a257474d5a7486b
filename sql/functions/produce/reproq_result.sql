create or replace function reproq_result(p_result_id bigint, p_watch boolean default false)
returns table (
    task_path text, status text, args jsonb, kwargs jsonb, return_json jsonb, errors_json jsonb, attempts integer,
    enqueued_at timestamptz, started_at timestamptz, last_attempted_at timestamptz, finished_at timestamptz,
    watched boolean
)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- What became of a task: one row, none when there is no such task. return_json is its result when SUCCESSFUL, the last of
-- errors_json says why it FAILED.
-- p_watch: its end will be notified on the channel ended (reproq_channels), payload: its id. LISTEN first, then
-- call; when watched is false, another session holds the row: call again soon.
-- Locks and writes the task once, when p_watch and it has not ended (skip locked).
begin
    if p_watch then
        update task_runs t
        set notify_end = true, revision = t.revision + 1
        where t.result_id = (
            select w.result_id from task_runs w
            where w.result_id = p_result_id and w.finished_at is null and not w.notify_end
            for no key update skip locked);
    end if;
    return query
    select t.task_path, t.status, t.spec_json -> 'args', t.spec_json -> 'kwargs', t.return_json, t.errors_json, t.attempts,
           t.enqueued_at, t.started_at, t.last_attempted_at, t.finished_at, t.notify_end
    from task_runs t
    where t.result_id = p_result_id;
end
$$;

revoke execute on function reproq_result(bigint, boolean) from public;
comment on function reproq_result(bigint, boolean) is
    'Status, result, errors and times of a task, for its producer. With p_watch, its end is notified on the channel reproq_ended. @0.1.0';
