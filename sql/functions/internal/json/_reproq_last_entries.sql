create or replace function _reproq_last_entries(p_array jsonb, p_keep integer) returns jsonb
language sql immutable parallel safe
as $$
-- The last p_keep entries of a jsonb array, in their order.
select coalesce(jsonb_agg(e.value order by e.place), '[]')
from jsonb_array_elements(p_array) with ordinality as e (value, place)
where e.place > jsonb_array_length(p_array) - p_keep
$$;

revoke execute on function _reproq_last_entries(jsonb, integer) from public;
comment on function _reproq_last_entries(jsonb, integer) is 'The last entries of a jsonb array. @0.1.0';
