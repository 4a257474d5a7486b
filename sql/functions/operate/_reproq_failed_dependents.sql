create or replace function _reproq_failed_dependents(p_result_id bigint, p_callback_id bigint) returns bigint[]
language plpgsql stable parallel unsafe
as $$
-- Dependents that ended only because this task did not succeed: the steps behind it (parent_failed), this callback of
-- its chord (workflow_failed; null: none), and so on behind these.
begin
    return array(
        with recursive behind as (
            (select t.result_id
             from task_runs t
             where t.result_id = p_callback_id and t.status || '' = 'FAILED'
               and t.errors_json #>> '{-1,kind}' = 'workflow_failed'
             union all
             select t.result_id
             from task_runs t
             where t.parent_id = p_result_id and t.status || '' = 'FAILED'
               and t.errors_json #>> '{-1,kind}' = 'parent_failed')
            union
            select n.result_id
            from behind b
            cross join lateral (
                select c.result_id
                from task_runs c
                where c.parent_id = b.result_id and c.status || '' = 'FAILED'
                  and c.errors_json #>> '{-1,kind}' = 'parent_failed'
                offset 0) n
        )
        select b.result_id from behind b where b.result_id <> p_result_id);
end
$$;

revoke execute on function _reproq_failed_dependents(bigint, bigint) from public;
comment on function _reproq_failed_dependents(bigint, bigint) is
    'Steps and a callback that ended only because a task did not succeed. @0.1.0';
