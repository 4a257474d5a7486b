create or replace function _reproq_finish(
    p_result_ids bigint[], p_returns jsonb[], p_errors jsonb[], p_logs_uris text[] default null,
    p_accounts jsonb[] default null
) returns void
language plpgsql volatile parallel unsafe
as $$
-- The only way into a final state: complete, fail, reclaim, cancel and expiry all call it.
-- Element by element: error null = SUCCESSFUL with its return, else FAILED. The rows, then dependents,
-- workflows, keys and notifications, in the caller's transaction.
-- The caller holds, in this order: the keys' locks, the workflow rows, the task rows.
begin
    perform _reproq_set_final(p_result_ids, p_returns, p_errors, p_logs_uris, p_accounts);
    perform _reproq_propagate(p_result_ids);
end
$$;

revoke execute on function _reproq_finish(bigint[], jsonb[], jsonb[], text[], jsonb[]) from public;
comment on function _reproq_finish(bigint[], jsonb[], jsonb[], text[], jsonb[]) is
    'Brings tasks to their final state together with everything that follows from it. @0.1.0';
