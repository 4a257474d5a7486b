create or replace function reproq_retry_failed(
    p_queue_name text default null, p_task_path text default null, p_limit integer default null,
    p_after_id bigint default 0, p_kinds text[] default null
) returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Retries failed tasks by id, of one queue and path or of all (null) and of these kinds of last error (null: all but
-- cancelled and expired, which run again only when named): one row each, retried, already_active,
-- waiting (for another one that was retried), not_failed (others must succeed before it) or busy (another session holds
-- it, its chord, its duplicate or what depends on it). One task that cannot be retried stops no other.
-- At most p_limit (null: 1,000) a call, after p_after_id: pass the last id of the call before to go on.
-- Raises RQ001 on a bad p_limit, RQ003. Locks: all workflow rows, waiting two seconds at most each; tasks by
-- _reproq_try_reopen; then _reproq_requeue_failed, which waits for uncommitted duplicates only. Writes the audit log.
declare
    v_ids bigint[];
    v_own bigint[];
    v_locked bigint[];
    v_back bigint[];
begin
    perform _reproq_require_read_committed();
    perform _reproq_check_limit_argument('reproq_retry_failed', p_limit);
    v_ids := array(
        select t.result_id from task_runs t
        where t.status = 'FAILED' and t.result_id > coalesce(p_after_id, 0)
          and (p_queue_name is null or t.queue_name = p_queue_name)
          and (p_task_path is null or t.task_path = p_task_path)
          and case when p_kinds is null then coalesce(t.errors_json #>> '{-1,kind}', '') not in ('cancelled', 'expired')
                   else t.errors_json #>> '{-1,kind}' = any (p_kinds) end
        order by t.result_id
        limit coalesce(p_limit, 1000));
    begin
        perform _reproq_lock_workflows(v_ids);
    exception when lock_not_available then
        null;  -- another session holds a chord for long: that stops only its own tasks
    end;
    v_own := array(
        select t.result_id from task_runs t where t.result_id = any (v_ids) and _reproq_waits_for(t) is null);
    v_locked := array(select u.id from unnest(v_own) as u (id) where _reproq_try_reopen(u.id));
    v_back := _reproq_requeue_failed(array(
        select t.result_id from task_runs t where t.result_id = any (v_locked) and t.status || '' = 'FAILED'));
    return query
    select t.result_id, case when t.result_id in (select unnest(v_back)) then 'retried'
                             when t.result_id in (select unnest(v_locked)) and exists (
                                 select from task_runs o
                                 where o.spec_hash = t.spec_hash and o.status in ('READY', 'RUNNING')) then 'already_active'
                             when t.status || '' = 'WAITING' then 'waiting'
                             when t.status || '' = 'FAILED' and t.result_id in (select unnest(v_own)) then 'busy'
                             else 'not_failed' end
    from task_runs t
    where t.result_id = any (v_ids)
    order by t.result_id;
end
$$;

revoke execute on function reproq_retry_failed(text, text, integer, bigint, text[]) from public;
comment on function reproq_retry_failed(text, text, integer, bigint, text[]) is
    'Retries failed tasks of a queue, path and kinds (null: all but cancelled and expired), p_limit (1,000) a call, by id after p_after_id: retried, already_active, waiting, not_failed or busy for each. @0.1.0';
