create or replace function reproq_complete_one(
    p_result_id bigint, p_lease_token uuid, p_return jsonb, p_tasks jsonb default null
) returns text
language sql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
-- Ends an attempt as SUCCESSFUL in the transaction of the caller, as its last statement: the task's own effects and its
-- end are committed together, or not at all. ok, already (it had ended as SUCCESSFUL before), lost (roll back), busy (ask
-- again). p_tasks: an array of reproq_enqueue_many with tasks that follow. Until the transaction ends, other sessions
-- skip the task, and its lease is not renewed. Raises RQ002 on a bad task, RQ003. Locks: those of reproq_complete.
select c.answer
from reproq_complete_and_enqueue(array[p_result_id], array[p_lease_token], array[p_return], array[p_tasks]) c
$$;

revoke execute on function reproq_complete_one(bigint, uuid, jsonb, jsonb) from public;
comment on function reproq_complete_one(bigint, uuid, jsonb, jsonb) is
    'Ends an attempt that succeeded in the task''s own transaction: ok, already, lost or busy; for the attempt that shows its fence. @0.1.0';
