create or replace function _reproq_merge(p_object jsonb, p_more jsonb) returns jsonb
language sql immutable parallel safe
as $$
-- p_object with the keys of p_more set; what is not an object counts as empty.
select case when jsonb_typeof(p_object) = 'object' then p_object || p_more else p_more end
$$;

revoke execute on function _reproq_merge(jsonb, jsonb) from public;
comment on function _reproq_merge(jsonb, jsonb) is 'Sets keys of a jsonb object. @0.1.0';
