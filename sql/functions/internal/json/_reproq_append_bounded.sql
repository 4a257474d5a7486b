create or replace function _reproq_append_bounded(p_array jsonb, p_entry jsonb, p_keep integer default 10) returns jsonb
language sql immutable parallel safe
as $$
-- p_array with p_entry (not an array itself) at its end, the last p_keep entries kept. What is not an array
-- counts as empty. Written so that it is inlined into the hot statements.
select case
    when jsonb_typeof(p_array) is distinct from 'array' then '[]'::jsonb || p_entry
    when jsonb_array_length(p_array) < p_keep then p_array || p_entry
    else _reproq_last_entries(p_array || p_entry, p_keep)
end
$$;

revoke execute on function _reproq_append_bounded(jsonb, jsonb, integer) from public;
comment on function _reproq_append_bounded(jsonb, jsonb, integer) is
    'Appends to a jsonb array and keeps its last entries (10): histories stay bounded. @0.1.0';
