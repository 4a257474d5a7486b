create or replace function _reproq_build_tasks(p_tasks jsonb, p_dedupe boolean)
returns table (place bigint, id bigint, task jsonb, spec jsonb, hash text)
language plpgsql volatile parallel unsafe
as $$
-- Checks and prepares an array of tasks: an id in the order given, so that ties are
-- served in that order, the spec, and its hash; a random hash unless p_dedupe and the task's "dedupe"
-- ask for deduplication. Raises RQ002. Writes nothing.
declare
    v_sequence regclass := pg_get_serial_sequence('task_runs', 'result_id');
begin
    return query
    select e.place, nextval(v_sequence), e.task, b.spec,
           case when p_dedupe and coalesce((e.task ->> 'dedupe')::boolean, true) then reproq_spec_hash(b.spec)
                else replace(gen_random_uuid()::text, '-', '') end
    from jsonb_array_elements(p_tasks) with ordinality as e (task, place)
    cross join lateral _reproq_check_task(e.task, e.place)
    cross join lateral (select _reproq_build_spec(e.task) as spec) b
    order by e.place;
end
$$;

revoke execute on function _reproq_build_tasks(jsonb, boolean) from public;
comment on function _reproq_build_tasks(jsonb, boolean) is 'Checks and prepares the tasks that a producer asks for. @0.1.0';
