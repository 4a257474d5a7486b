create or replace function _reproq_propagate(p_result_ids bigint[]) returns void
language plpgsql volatile parallel unsafe
as $$
-- What follows when tasks have become final: steps that waited for them start or end, chords advance, and
-- tasks blocked on their keys are unblocked. Ends dependents by the same rules, round by round, without recursion.
-- Locks: dependents by id, workflow rows (mostly held by the caller), blocked tasks (skip locked).
declare
    v_ended bigint[] := p_result_ids;
    v_fallen bigint[];
    v_all bigint[] := p_result_ids;
begin
    if exists (select from task_runs t where t.result_id = any (p_result_ids) and num_nonnulls(t.workflow_id) = 1)
       or exists (select from task_runs c where c.parent_id = any (p_result_ids) and c.status || '' = 'WAITING')
    then
        while cardinality(v_ended) > 0 loop
            v_fallen := _reproq_propagate_to_steps(v_ended);
            v_all := v_all || v_fallen;
            v_ended := _reproq_propagate_to_chords(v_ended || v_fallen);
            v_all := v_all || v_ended;
        end loop;
    end if;
    perform _reproq_release_keys(v_all);
end
$$;

revoke execute on function _reproq_propagate(bigint[]) from public;
comment on function _reproq_propagate(bigint[]) is
    'Carries final states on to dependents, workflows and keys. @0.1.0';
