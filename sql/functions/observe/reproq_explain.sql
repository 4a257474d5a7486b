create or replace function reproq_explain(p_result_id bigint)
returns table (blocks boolean, reason text, detail text, until timestamptz, remedy text)
language plpgsql stable parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Why a task is not running now: one row per reason, the ones that block it first. blocks: a claim for its queue
-- would not start it; when no row blocks, the next claim that reaches it will. until: when this reason ends by
-- itself, if that is known. remedy: the statement that would change it. Takes no lock, writes nothing.
-- A final task: how it ended and what runs it again; when others must succeed before it, that is the retry of the first
-- of them that failed, and there is no remedy when that one was deleted.
-- A READY task is judged by the same functions that the claim asks. Rows that do not block: blocked on a free key, no
-- worker seen lately, quarantined, and its place in the queue (counted up to 1,000).
declare
    v_task task_runs%rowtype;
    v_now timestamptz := reproq_now();
    v_due timestamptz;
    v_id text := p_result_id::text;
    v_cause task_runs%rowtype;
    v_before bigint;
    v_seen bigint[] := '{}';
begin
    select t.* into v_task from task_runs t where t.result_id = p_result_id;
    if not found then
        return query select true, 'missing', 'there is no task ' || p_result_id, null::timestamptz, null::text;
    elsif v_task.finished_at is not null then
        v_cause := v_task;
        while v_cause.status in ('FAILED', 'CANCELLED') and v_cause.result_id <> all (v_seen) loop
            v_before := _reproq_waits_for(v_cause);
            exit when v_before is null or v_before = 0;
            v_seen := v_seen || v_cause.result_id;
            select t.* into v_cause from task_runs t where t.result_id = v_before;
        end loop;
        return query select true, 'ended',
            v_task.status || coalesce(': ' || v_task.last_error, '')
            || case when v_cause.result_id = v_task.result_id then ''
                    else '; waits for task ' || v_cause.result_id || ', which is ' || v_cause.status
                         || coalesce(': ' || v_cause.last_error, '') end
            || case when v_before = 0 then '; what it waited for was deleted, so nothing can retry it' else '' end,
            null::timestamptz,
            case when v_task.status = 'SUCCESSFUL' then 'select * from reproq_replay(' || v_id || ')'
                 when v_before = 0 then null
                 when v_cause.status in ('FAILED', 'CANCELLED') then 'select reproq_retry(' || v_cause.result_id || ')'
                 else 'select * from reproq_explain(' || v_cause.result_id || ')' end;
    elsif v_task.status = 'RUNNING' then
        return query select true, 'running', 'attempt ' || v_task.attempts || ' runs on worker ' || coalesce(v_task.leased_by, '?')
            || case when v_task.cancel_requested then '; its cancel is requested' else '' end,
            v_task.leased_until, 'select reproq_cancel(' || p_result_id || ')';
    elsif v_task.status = 'WAITING' then
        return query
        select true, 'waiting_for_step', 'waits for task ' || p.result_id || ', which is ' || p.status, null::timestamptz,
               'select * from reproq_explain(' || p.result_id || ')'
        from task_runs p where p.result_id = v_task.parent_id
        union all
        select true, 'waiting_for_members', m.good || ' of ' || w.expected_count || ' members of its chord have succeeded'
               || case when m.good < w.expected_count and m.first_open is null
                       then '; no other is left, so reproq_reclaim ends it after a minute' else '' end,
               null::timestamptz, case when m.first_open is not null then 'select * from reproq_explain(' || m.first_open || ')'
                                       when m.good < w.expected_count then 'select reproq_cancel(' || v_id || ')' end
        from workflow_runs w
        cross join lateral (
            select count(*) filter (where o.status = 'SUCCESSFUL') as good,
                   min(o.result_id) filter (where o.finished_at is null) as first_open
            from task_runs o
            where o.workflow_id = w.workflow_id and o.result_id <> v_task.result_id) m
        where w.callback_result_id = v_task.result_id;
        if not found then
            return query select true, 'orphaned', 'what it waited for is gone; reproq_reclaim ends it after a minute',
                null::timestamptz, 'select reproq_cancel(' || v_id || ')';
        end if;
    else
        v_due := greatest(v_task.enqueued_at, v_task.run_after);
        return query
        select e.* from (
            select true as blocks, 'cancelled', 'its cancel is requested; the next claim or reproq_reclaim ends it', null::timestamptz, null::text
            where v_task.cancel_requested
            union all
            select true, 'expired', 'it was to start before ' || v_task.expires_at || '; the next claim or reproq_reclaim ends it',
                   null, 'update task_runs set expires_at = null where result_id = ' || v_id || ' -- as the owner'
            where v_task.expires_at <= v_now
            union all
            select true, 'due_later', case
                       when v_task.last_answer = 'snoozed' then 'snoozed until ' || v_due
                       when v_task.last_answer = 'retry' and v_task.errors_json #>> '{-1,kind}' = 'retry_asked'
                       then 'retry asked for: ' || coalesce(v_task.errors_json #>> '{-1,message}', '') || '; due at ' || v_due
                       else 'due in ' || date_trunc('milliseconds', v_due - v_now) end, v_due,
                   'update task_runs set run_after = null where result_id = ' || v_id || ' -- as the owner'
            where v_due > v_now
            union all
            select true, 'paused', 'queue ' || c.queue_name || ' is paused' || coalesce(' since ' || c.paused_at, '')
                       || coalesce(': ' || c.reason, ''),
                   null, 'select reproq_resume(' || quote_literal(c.queue_name) || ')'
            from reproq_queue_controls c where c.queue_name = v_task.queue_name and c.paused
            union all
            select true, 'lock_key', 'lock key ' || quote_literal(left(v_task.lock_key, 100)) || ' is held by task ' || r.result_id
                       || ' on worker ' || coalesce(r.leased_by, '?'),
                   r.leased_until, 'select reproq_cancel(' || r.result_id || ')'
            from task_runs r
            where hashtextextended(r.lock_key, 0) = hashtextextended(v_task.lock_key, 0) and r.status = 'RUNNING' and r.lock_key <> ''
            union all
            select true, 'concurrency_key', u.used || ' of ' || l.max_running || ' run under concurrency key '
                       || quote_literal(left(v_task.concurrency_key, 100)) || '; that limit is '
                       || case when l.set_by is null then 'an operator''s' when l.set_by = v_task.result_id then 'its own'
                               else 'the one of task ' || l.set_by end,
                   null, case when octet_length(v_task.concurrency_key) <= 1024 then 'select reproq_concurrency_set('
                       || quote_literal(v_task.concurrency_key) || ', ' || u.used + 1 || ')' end
            from _reproq_concurrency_limit(v_task.concurrency_key) l
            cross join lateral (select _reproq_concurrency_used(v_task.concurrency_key) as used) u
            where v_task.concurrency_key <> '' and (v_task.concurrency_limit > 0 or l.set_by is null)
              and u.used >= l.max_running
            union all
            select false, 'blocked', 'blocked on ' || quote_literal(left(v_task.blocked_on, 102)) || ' behind older tasks of that key, though it is '
                       || 'free; if other sessions hold their rows, reproq_reclaim lets it pass', null, null
            where v_task.blocked_on <> '' and _reproq_free_places(v_task.blocked_on) > 0
            union all
            select true, 'rate_limit', coalesce('throttled until ' || l.throttled_until || ': a task of this path asked for it',
                       'token bucket ' || b.key || ' is empty'), v_now + b.next_token,
                   'select reproq_limit_rm(' || quote_literal(b.key) || ')'
            from _reproq_bucket(v_task.queue_name, 'task:' || v_task.task_path, v_now) b
            left join rate_limits l on l.key = b.key and l.throttled_until > v_now
            where b.tokens < 1
            union all
            select false, 'no_worker', 'no worker of queue ' || v_task.queue_name || ' that runs ' || v_task.task_path
                       || ' was seen in the last 5 minutes', null, null
            where not exists (
                select from reproq_workers w
                where w.last_seen_at > v_now - interval '5 minutes' and w.queues ? v_task.queue_name
                  and (w.allowed_modules is null or exists (
                      select from jsonb_array_elements_text(w.allowed_modules) as m (prefix)
                      where m.prefix in ('*', v_task.task_path)
                         or starts_with(v_task.task_path, rtrim(m.prefix, '.') || '.'))))
            union all
            select false, 'quarantined', 'it lost its lease ' || v_task.lost_count || ' times: until ' || (v_due + interval '5 minutes')
                       || ' only a worker that runs nothing else takes it', null, null
            where v_task.lost_count >= 2 and v_due > v_now - interval '5 minutes'
            union all
            select false, 'position', case when n.place is null then 'at least 1000' else (n.place - 1)::text end
                       || ' due tasks of its queue are ahead', null, null
            from (select min(c.ordinality) filter (where c.result_id = v_task.result_id) as place, count(*) as seen
                  from _reproq_candidates(array[v_task.queue_name], 1000, v_now, 60, null, '{}', '{}', '{}') with ordinality as c) n
            where v_due <= v_now and v_task.blocked_on = '' and (n.place is not null or n.seen >= 1000)) e
        order by e.blocks desc;
    end if;
    return query
    select false, 'steps_done', count(*) || ' steps are done: '
               || left(string_agg(s.name || ' (attempt ' || s.attempt || ')', ', ' order by s.stored_at), 2000),
           null::timestamptz, null::text
    from reproq_steps s
    where s.result_id = p_result_id
    having count(*) > 0;
end
$$;

revoke execute on function reproq_explain(bigint) from public;
comment on function reproq_explain(bigint) is
    'Why a task is not running now: a row a reason, what blocks first; until when, and the statement (remedy) that would change it. @0.1.0';
