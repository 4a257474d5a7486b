create or replace function reproq_retry_failed(
    p_queue_name text default null, p_task_path text default null, p_limit integer default null,
    p_after_id bigint default 0
) returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
#variable_conflict use_column
-- Retries failed tasks by id, of one queue and path or of all (null): one row each, retried, already_active,
-- not_failed (a step that others must succeed before) or busy (somebody holds it: try again). One task that cannot
-- be retried stops no other; a step that waits again because the one before it was retried gets no row.
-- At most p_limit (null: 1,000) a call, after p_after_id: pass the last id of the call before to go on.
-- Raises RQ001 on a bad p_limit, RQ003. Locks: all workflow rows, then as reproq_retry, one task after the other.
-- Writes the audit log.
declare
    v_ids bigint[];
    v_id bigint;
begin
    perform reproq_require_read_committed();
    perform reproq_check_limit_argument('reproq_retry_failed', p_limit);
    v_ids := array(
        select t.result_id from task_runs t
        where t.status = 'FAILED' and t.result_id > coalesce(p_after_id, 0)
          and (p_queue_name is null or t.queue_name = p_queue_name)
          and (p_task_path is null or t.task_path = p_task_path)
        order by t.result_id
        limit coalesce(p_limit, 1000));
    perform reproq_lock_workflows(v_ids);
    foreach v_id in array v_ids loop
        continue when exists (select from task_runs t where t.result_id = v_id and t.status <> 'FAILED');
        begin
            return query select v_id, reproq_retry(v_id);
        exception when lock_not_available then
            return query select v_id, 'busy'::text;
        end;
    end loop;
end
$$;

revoke execute on function reproq_retry_failed(text, text, integer, bigint) from public;
comment on function reproq_retry_failed(text, text, integer, bigint) is
    'Retries failed tasks of a queue and path (null: all), p_limit (1,000) a call, by id after p_after_id: retried, already_active, not_failed or busy for each. @v1';
