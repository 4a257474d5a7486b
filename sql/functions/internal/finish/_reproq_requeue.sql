create or replace function _reproq_requeue(
    p_result_ids bigint[], p_errors jsonb[], p_run_afters timestamptz[], p_answer text, p_logs_uris text[] default null
) returns void
language plpgsql volatile parallel unsafe
as $$
-- The only way from RUNNING back to READY. p_answer: retry (an attempt failed; error and time given), lost (its
-- lease expired; likewise), released (the attempt is not charged, its place in the queue is kept), snoozed (not charged;
-- time given), throttled (as released; its path is throttled, _reproq_throttle).
-- The caller holds the row locks. Locks: blocked tasks of the keys that it releases (skip locked).
declare
    v_now timestamptz := reproq_now();
begin
    update task_runs t
    set status = 'READY', updated_at = v_now, revision = t.revision + 1,
        attempts = case when p_answer in ('released', 'snoozed', 'throttled') then greatest(t.attempts - 1, 0) else t.attempts end,
        snooze_count = t.snooze_count + (p_answer = 'snoozed')::integer,
        limit_key = case when p_answer = 'throttled' then 'task:' || t.task_path else t.limit_key end,
        lost_count = case when p_answer = 'lost' then t.lost_count + 1 else t.lost_count end,
        run_after = coalesce(u.run_after, t.run_after),
        errors_json = case when u.error is null then t.errors_json else _reproq_append_bounded(t.errors_json,
            _reproq_error_entry(u.error, v_now, t.attempts, t.leased_by, t.task_path)) end,
        logs_uri = coalesce(u.logs_uri, t.logs_uri),
        last_token = t.lease_token, last_answer = p_answer,
        lease_token = null, leased_until = null, leased_by = null, leased_incarnation = null, concurrency_slot = null
    from unnest(p_result_ids, p_errors, p_run_afters, p_logs_uris) as u (id, error, run_after, logs_uri)
    where t.result_id = any (array[u.id]);
    perform _reproq_notify_claimable(p_result_ids);
    perform _reproq_release_keys(p_result_ids);
end
$$;

revoke execute on function _reproq_requeue(bigint[], jsonb[], timestamptz[], text, text[]) from public;
comment on function _reproq_requeue(bigint[], jsonb[], timestamptz[], text, text[]) is
    'Returns running tasks to READY: retried, lost, released, snoozed or throttled. @0.1.0';
