create or replace function _reproq_explain_ready(p_task task_runs, p_now timestamptz)
returns table (blocks boolean, reason text, detail text, until timestamptz, remedy text)
language plpgsql stable parallel unsafe
as $$
#variable_conflict use_column
-- What keeps a READY task from starting, by the same functions that the claim asks. For reproq_explain.
-- Rows that do not block: blocked on a free key, no worker seen lately, and its place in the queue (counted up to
-- 1,000).
declare
    v_due timestamptz := greatest(p_task.enqueued_at, p_task.run_after);
    v_id text := p_task.result_id::text;
begin
    return query
    select true, 'cancelled', 'its cancel is requested; the next claim or reproq_reclaim ends it', null::timestamptz, null::text
    where p_task.cancel_requested
    union all
    select true, 'expired', 'it was to start before ' || p_task.expires_at || '; the next claim or reproq_reclaim ends it',
           null, 'update task_runs set expires_at = null where result_id = ' || v_id || ' -- as the owner'
    where p_task.expires_at <= p_now
    union all
    select true, 'due_later', 'due in ' || date_trunc('milliseconds', v_due - p_now), v_due,
           'update task_runs set run_after = null where result_id = ' || v_id || ' -- as the owner'
    where v_due > p_now
    union all
    select true, 'paused', 'queue ' || c.queue_name || ' is paused' || coalesce(' since ' || c.paused_at, '')
               || coalesce(': ' || c.reason, ''),
           null, 'select reproq_resume(' || quote_literal(c.queue_name) || ')'
    from reproq_queue_controls c where c.queue_name = p_task.queue_name and c.paused
    union all
    select true, 'lock_key', 'lock key ' || quote_literal(left(p_task.lock_key, 100)) || ' is held by task ' || r.result_id
               || ' on worker ' || coalesce(r.leased_by, '?'),
           r.leased_until, 'select reproq_cancel(' || r.result_id || ')'
    from task_runs r
    where md5(r.lock_key) = md5(p_task.lock_key) and r.status = 'RUNNING' and r.lock_key <> ''
    union all
    select true, 'concurrency_key', u.used || ' of ' || l.allowed || ' run under concurrency key '
               || quote_literal(left(p_task.concurrency_key, 100)), null, null
    from (select least(p_task.concurrency_limit, _reproq_concurrency_limit(p_task.concurrency_key)) as allowed) l
    cross join lateral (select _reproq_concurrency_used(p_task.concurrency_key) as used) u
    where p_task.concurrency_key <> '' and p_task.concurrency_limit > 0 and u.used >= l.allowed
    union all
    select false, 'blocked', 'blocked on ' || quote_literal(left(p_task.blocked_on, 102)) || ' behind older tasks of that key, though it is '
               || 'free; if somebody holds their rows, reproq_reclaim lets it pass', null, null
    where p_task.blocked_on <> '' and _reproq_free_places(p_task.blocked_on) > 0
    union all
    select true, 'rate_limit', 'token bucket ' || b.key || ' is empty', p_now + b.next_token,
           'select reproq_limit_rm(' || quote_literal(b.key) || ')'
    from _reproq_bucket(p_task.queue_name, 'task:' || p_task.task_path, p_now) b
    where b.tokens < 1
    union all
    select false, 'no_worker', 'no worker of queue ' || p_task.queue_name || ' that runs ' || p_task.task_path
               || ' was seen in the last 5 minutes', null, null
    where not exists (
        select from reproq_workers w
        where w.last_seen_at > p_now - interval '5 minutes' and w.queues ? p_task.queue_name
          and _reproq_is_allowed(w.allowed_modules, p_task.task_path))
    union all
    select false, 'quarantined', 'it lost its lease ' || p_task.lost_count || ' times: until ' || (v_due + interval '5 minutes')
               || ' only a worker that runs nothing else takes it', null, null
    where p_task.lost_count >= 2 and v_due > p_now - interval '5 minutes'
    union all
    select false, 'position', case when n.place is null then 'at least 1000' else (n.place - 1)::text end
               || ' due tasks of its queue are ahead', null, null
    from (select min(c.ordinality) filter (where c.result_id = p_task.result_id) as place, count(*) as seen
          from _reproq_candidates(array[p_task.queue_name], 1000, p_now, 60, null, '{}', '{}') with ordinality as c) n
    where v_due <= p_now and p_task.blocked_on = '' and (n.place is not null or n.seen >= 1000);
end
$$;

revoke execute on function _reproq_explain_ready(task_runs, timestamptz) from public;
comment on function _reproq_explain_ready(task_runs, timestamptz) is
    'What keeps a READY task from starting; part of reproq_explain. @0.1.0';
