create or replace function _reproq_set_final(
    p_result_ids bigint[], p_returns jsonb[], p_errors jsonb[], p_logs_uris text[], p_accounts jsonb[]
) returns void
language plpgsql volatile parallel unsafe
as $$
-- The one statement that writes a final state. Error null = SUCCESSFUL with its return, else FAILED with the
-- error appended; an account (what the attempt used) goes to metadata_json.reproq. last_token changes, so a repeated
-- call is known and the table's triggers see that our functions wrote it. The caller holds the row locks and calls
-- _reproq_propagate; both together are _reproq_finish. Notifies clients that wait for these ends.
declare
    v_now timestamptz := reproq_now();
    v_watched bigint[];
begin
    with ended as (
        update task_runs t
        set status = case when u.error is null then 'SUCCESSFUL' else 'FAILED' end,
            return_json = case when u.error is null then u.value end,
            errors_json = case when u.error is null then t.errors_json else _reproq_append_bounded(t.errors_json,
                _reproq_error_entry(u.error, v_now, t.attempts, t.leased_by, t.task_path)) end,
            last_error = case when u.error is not null then _reproq_error_summary(u.error) end,
            failed_at = case when u.error is not null then v_now end,
            finished_at = v_now, updated_at = v_now, revision = t.revision + 1,
            logs_uri = coalesce(u.logs_uri, t.logs_uri),
            metadata_json = case when u.account is null then t.metadata_json
                else _reproq_merge(t.metadata_json, jsonb_build_object('reproq', u.account)) end,
            last_token = coalesce(t.lease_token, gen_random_uuid()),
            last_answer = case when u.error is null then 'ok' else 'failed' end,
            lease_token = null, leased_until = null, leased_by = null, leased_incarnation = null,
            concurrency_slot = null, blocked_on = ''
        from unnest(p_result_ids, p_returns, p_errors, p_logs_uris, p_accounts) as u (id, value, error, logs_uri, account)
        where t.result_id = any (array[u.id])
        returning t.result_id, t.notify_end
    )
    select array_agg(e.result_id) filter (where e.notify_end) into v_watched from ended e;
    if v_watched is not null then
        perform _reproq_notify_ended(v_watched);
    end if;
end
$$;

revoke execute on function _reproq_set_final(bigint[], jsonb[], jsonb[], text[], jsonb[]) from public;
comment on function _reproq_set_final(bigint[], jsonb[], jsonb[], text[], jsonb[]) is
    'Writes the final state of tasks; used by _reproq_finish and _reproq_propagate only. @0.1.0';
