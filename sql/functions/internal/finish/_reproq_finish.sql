create or replace function reproq_finish(
    p_result_ids bigint[], p_returns jsonb[], p_errors jsonb[], p_logs_uris text[] default null,
    p_accounts jsonb[] default null
) returns void
language plpgsql volatile parallel unsafe
as $$
-- The door: the only way into a final state, by whatever road (complete, fail, reclaim, cancel, expiry).
-- Element by element: error null = SUCCESSFUL with its return, else FAILED. The rows, then dependents,
-- workflows, keys and (through the table's triggers) the bell, in the caller's transaction.
-- The caller holds, in this order: the keys' locks, the workflow rows, the task rows.
begin
    perform reproq_write_end(p_result_ids, p_returns, p_errors, p_logs_uris, p_accounts);
    perform reproq_settle(p_result_ids);
end
$$;

revoke execute on function reproq_finish(bigint[], jsonb[], jsonb[], text[], jsonb[]) from public;
comment on function reproq_finish(bigint[], jsonb[], jsonb[], text[], jsonb[]) is
    'Brings tasks to their final state together with everything that follows from it. @v1';
