create or replace function _reproq_insert_tasks(
    p_tasks jsonb, p_result_ids bigint[], p_now timestamptz, p_kind text default null,
    p_workflow_id uuid default null, p_more jsonb default '{}'
) returns void
language plpgsql volatile parallel unsafe
as $$
-- The one INSERT of tasks without deduplication; those that ask for it are left out. p_tasks: checked elements of
-- reproq_enqueue_many; p_result_ids: their ids, by place. p_kind: null, group, chain (each waits for the one
-- before it) or chord (the last waits for all others). p_more goes into each spec. Notifies each queue once.
declare
    v_queues text[];
    v_limit_keys text[];
    v_has_keys boolean;
    v_blocks integer[];
    v_stem text := left(replace(gen_random_uuid()::text, '-', ''), 24);  -- of hashes that are never looked for
begin
    select array_agg(distinct g.queue_name), array_agg(distinct g.limit_key), bool_or(g.has_keys)
    into v_queues, v_limit_keys, v_has_keys
    from (select t.queue_name, 'task:' || t.task_path as limit_key,
                 bool_or(coalesce(t.lock_key, t.concurrency_key) is not null) as has_keys
          from _reproq_read_tasks(p_tasks, p_now) t
          where not t.dedupe and t.unique_key is null
          group by t.queue_name, t.task_path) g;
    v_limit_keys := array(select r.key from rate_limits r where r.key = any (v_limit_keys));
    if v_has_keys then
        v_blocks := _reproq_blocks_at_insert(p_tasks, v_limit_keys, p_kind, p_now);
    end if;
    insert into task_runs (result_id, queue_name, priority, run_after, spec_json, spec_hash, task_path, status,
        enqueued_at, updated_at, max_attempts, timeout_seconds, lock_key, concurrency_key, concurrency_limit,
        expires_at, parent_id, wait_count, workflow_id, limit_key, blocked_on, revision)
    select p_result_ids[t.place], t.queue_name, t.priority, t.run_after,
           _reproq_build_spec(t.task_path, t.args, t.kwargs, t.queue_name, t.priority, t.run_after, t.lock_key,
               t.concurrency_key, t.concurrency_limit, t.max_attempts, t.timeout_seconds, t.takes_context,
               t.backoff_seconds) || p_more,
           v_stem || lpad(to_hex(t.place), 8, '0'), t.task_path,
           case when p_kind = 'chain' and t.place > 1
                  or p_kind = 'chord' and t.place > 1 and t.place = cardinality(p_result_ids) then 'WAITING' else 'READY' end,
           p_now, p_now, t.max_attempts, t.timeout_seconds, t.lock_key, t.concurrency_key, t.concurrency_limit,
           t.expires_at, case when p_kind = 'chain' then p_result_ids[t.place - 1] end,
           case when p_kind = 'chain' and t.place > 1 then 1
                when p_kind = 'chord' and t.place = cardinality(p_result_ids) then t.place - 1 else 0 end,
           p_workflow_id,
           case when v_limit_keys <> '{}' and 'task:' || t.task_path = any (v_limit_keys) then 'task:' || t.task_path else '' end,
           case v_blocks[t.place] when 1 then 'l:' || t.lock_key when 2 then 'c:' || t.concurrency_key else '' end, 1
    from (
        -- offset 0: with the expressions of these columns in place of their names _reproq_build_spec is not inlined.
        select r.* from _reproq_read_tasks(p_tasks, p_now) r where not r.dedupe and r.unique_key is null offset 0) t;
    perform _reproq_notify(q.queue_name) from unnest(v_queues) as q (queue_name);
end
$$;

revoke execute on function _reproq_insert_tasks(jsonb, bigint[], timestamptz, text, uuid, jsonb) from public;
comment on function _reproq_insert_tasks(jsonb, bigint[], timestamptz, text, uuid, jsonb) is
    'Inserts checked tasks that are new without question, alone or as a chain, group or chord. @0.1.0';
