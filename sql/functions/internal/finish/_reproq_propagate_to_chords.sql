create or replace function _reproq_propagate_to_chords(p_result_ids bigint[]) returns bigint[]
language plpgsql volatile parallel unsafe
as $$
-- Chords of these final tasks: counted by their rows, and moved to what these say (_reproq_workflow_state). All members
-- successful: the callback becomes READY. A member that did not succeed, or was deleted: the callback ends as
-- workflow_failed. Counts of a large chord may be a second old (_reproq_counts_are_recent).
-- Returns the callbacks that ended here.
-- Locks: workflow rows by id, then callbacks.
declare
    v_workflow workflow_runs%rowtype;
    v_callback text;
    v_state record;
    v_now timestamptz := reproq_now();
    v_ended bigint[] := '{}';
begin
    for v_workflow in
        select w.* from workflow_runs w
        where w.workflow_id = any (array(
            select t.workflow_id from task_runs t where t.result_id = any (p_result_ids)))
        order by w.workflow_id
        for no key update
    loop
        continue when _reproq_counts_are_recent(v_workflow, v_now);
        select t.status into v_callback from task_runs t
        where t.result_id = v_workflow.callback_result_id for no key update;
        select * into v_state from _reproq_workflow_state(v_workflow, v_now);
        update workflow_runs w
        set status = v_state.status, success_count = v_state.success_count, failure_count = v_state.failure_count,
            updated_at = v_now, revision = w.revision + 1
        where w.workflow_id = v_workflow.workflow_id
          and (w.status, w.success_count, w.failure_count)
              is distinct from (v_state.status, v_state.success_count, v_state.failure_count);

        if v_callback = 'WAITING' and v_state.status = 'WAITING_CALLBACK' then
            update task_runs t
            set status = 'READY', wait_count = 0, updated_at = v_now, revision = t.revision + 1,
                run_after = greatest(t.run_after, v_now), spec_hash = replace(gen_random_uuid()::text, '-', '')
            where t.result_id = v_workflow.callback_result_id;
            perform _reproq_notify_claimable(array[v_workflow.callback_result_id]);
        elsif v_callback = 'WAITING' and v_state.status = 'FAILED' then
            perform _reproq_set_final(array[v_workflow.callback_result_id], null, array[jsonb_build_object(
                'kind', 'workflow_failed', 'message',
                case when v_state.failure_count > 0 then 'a member of its group did not succeed'
                     else 'a member of its group was deleted' end)], null, null);
            v_ended := v_ended || v_workflow.callback_result_id;
        end if;
    end loop;
    return v_ended;
end
$$;

revoke execute on function _reproq_propagate_to_chords(bigint[]) from public;
comment on function _reproq_propagate_to_chords(bigint[]) is
    'Recounts the chords of tasks that are now final and moves their callbacks. @0.1.0';
