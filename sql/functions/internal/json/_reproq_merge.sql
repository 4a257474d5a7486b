create or replace function reproq_merge(p_object jsonb, p_more jsonb) returns jsonb
language sql immutable parallel safe
as $$
-- p_object with the keys of p_more set; what is not an object counts as empty.
select case when jsonb_typeof(p_object) = 'object' then p_object || p_more else p_more end
$$;

revoke execute on function reproq_merge(jsonb, jsonb) from public;
comment on function reproq_merge(jsonb, jsonb) is 'Sets keys of a jsonb object. @v1';
