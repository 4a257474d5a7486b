create or replace function _reproq_lock_shared(p_result_ids bigint[]) returns bigint[]
language plpgsql volatile parallel unsafe
as $$
-- Locks what tasks that end share with others, before their own rows: their keys, then their workflow rows, waiting.
-- Returns the tasks to leave to a later call. When lock_timeout ends the wait, a key or a chord is held for
-- long: that stops only tasks with keys, and members of chords that _reproq_try_end then leaves.
declare
    v_left bigint[];
begin
    v_left := _reproq_lock_keys(p_result_ids);
    perform _reproq_lock_workflows(p_result_ids);
    return v_left;
exception when lock_not_available then
    return array(
        select t.result_id from task_runs t
        where t.result_id = any (p_result_ids) and (t.lock_key <> '' or t.concurrency_key <> ''));
end
$$;

revoke execute on function _reproq_lock_shared(bigint[]) from public;
comment on function _reproq_lock_shared(bigint[]) is
    'Locks the keys and workflow rows of tasks that end; returns the tasks that must wait for a later call. @0.1.0';
