create or replace function _reproq_propagate_to_chords(p_result_ids bigint[]) returns bigint[]
language plpgsql volatile parallel unsafe
as $$
-- Chords of these final tasks. Counts are taken from the rows. All members successful: the callback becomes
-- READY. A member that did not succeed: the workflow is FAILED and its callback ends as workflow_failed.
-- The callback done: the workflow has its result. Members deleted by hand: FAILED, too, a minute after the last
-- count changed and the callback was written, since rows of a workflow may arrive one by one, from a host with a wrong
-- clock. Returns the callbacks that ended here.
-- The rows of a chord of more than 100 are counted once a second at most while members have not ended, and at once
-- when the first of them failed: its counts may be a second old, and a chord of ten thousand costs no ten thousand
-- counts of it.
-- Locks: workflow rows by id, then callbacks.
declare
    v_workflow workflow_runs%rowtype;
    v_good integer;
    v_bad integer;
    v_open integer;
    v_callback text;
    v_callback_since timestamptz;
    v_status text;
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
        continue when v_workflow.expected_count > 100 and v_workflow.status in ('RUNNING', 'FAILED')
            and v_workflow.updated_at between v_now - interval '1 second' and v_now
            and exists (
                select from task_runs t
                where t.workflow_id = v_workflow.workflow_id and t.status in ('READY', 'RUNNING', 'WAITING')
                  and t.result_id is distinct from v_workflow.callback_result_id)
            and (v_workflow.status = 'FAILED' or not exists (
                select from task_runs t
                where t.workflow_id = v_workflow.workflow_id and t.status in ('FAILED', 'CANCELLED')));
        select count(*) filter (where t.status = 'SUCCESSFUL'),
               count(*) filter (where t.status in ('FAILED', 'CANCELLED')),
               count(*) filter (where t.status in ('READY', 'RUNNING', 'WAITING'))
        into v_good, v_bad, v_open
        from task_runs t
        where t.workflow_id = v_workflow.workflow_id
          and t.result_id is distinct from v_workflow.callback_result_id;
        select t.status, t.updated_at into v_callback, v_callback_since from task_runs t
        where t.result_id = v_workflow.callback_result_id for no key update;

        v_status := case
            when v_callback = 'SUCCESSFUL' then 'SUCCESSFUL'
            when v_bad > 0 or v_callback in ('FAILED', 'CANCELLED') then 'FAILED'
            when v_good < v_workflow.expected_count and v_open = 0 and v_callback = 'WAITING'
                and v_good = v_workflow.success_count
                and greatest(v_workflow.updated_at, v_callback_since) < v_now - interval '1 minute' then 'FAILED'
            when v_good < v_workflow.expected_count then 'RUNNING'
            when v_callback is null then 'SUCCESSFUL'
            else 'WAITING_CALLBACK' end;
        update workflow_runs w
        set status = v_status, success_count = v_good, failure_count = v_bad, updated_at = v_now
        where w.workflow_id = v_workflow.workflow_id
          and (w.status, w.success_count, w.failure_count) is distinct from (v_status, v_good, v_bad);

        if v_callback = 'WAITING' and v_status = 'WAITING_CALLBACK' then
            update task_runs t
            set status = 'READY', wait_count = 0, updated_at = v_now, revision = t.revision + 1,
                run_after = greatest(t.run_after, v_now), spec_hash = replace(gen_random_uuid()::text, '-', '')
            where t.result_id = v_workflow.callback_result_id;
            perform _reproq_notify_claimable(array[v_workflow.callback_result_id]);
        elsif v_callback = 'WAITING' and v_status = 'FAILED' then
            perform _reproq_set_final(array[v_workflow.callback_result_id], null, array[jsonb_build_object(
                'kind', 'workflow_failed', 'message',
                case when v_bad > 0 then 'a member of its group did not succeed'
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
