create or replace function _reproq_some_waiting(p_limit integer)
returns table (result_id bigint, parent_id bigint, workflow_id uuid, updated_at timestamptz)
language plpgsql volatile parallel unsafe
as $$
#variable_conflict use_column
-- Up to p_limit WAITING tasks, from a random one, wrapping around, in the order of a digest: each of them is as likely
-- to be read as any other. Without locks.
declare
    v_start bigint := hashtextextended(random()::text, 0);
begin
    return query
    (select t.result_id, t.parent_id, t.workflow_id, t.updated_at from task_runs t
     where '' || t.status = 'WAITING' and hashint8extended(t.result_id, 0) >= v_start
     order by hashint8extended(t.result_id, 0))
    union all
    (select t.result_id, t.parent_id, t.workflow_id, t.updated_at from task_runs t
     where '' || t.status = 'WAITING' and hashint8extended(t.result_id, 0) < v_start
     order by hashint8extended(t.result_id, 0))
    limit p_limit;
end
$$;

revoke execute on function _reproq_some_waiting(integer) from public;
comment on function _reproq_some_waiting(integer) is
    'Up to a number of WAITING tasks, from a random one, wrapping around. @0.1.0';
