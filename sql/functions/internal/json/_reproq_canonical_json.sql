create or replace function _reproq_canonical_json(p_value jsonb) returns text
language plpgsql immutable strict parallel safe
as $$
-- The one spelling of a JSON value that is hashed: keys sorted by code point, no spaces, UTF-8 not escaped.
-- Equal to Python's json.dumps(sort_keys=True, separators=(",", ":"), ensure_ascii=False) but for numbers
-- in another notation than jsonb's (1e2 is 100 here). What has no string and no key needs no walk, nor what has
-- nothing to sort: nothing follows a comma or a colon.
declare
    v_text text := p_value::text;
begin
    if strpos(v_text, '"') = 0 then
        return replace(v_text, ', ', ',');
    elsif strpos(v_text, ', ') = 0 and strpos(v_text, ': ') = 0 then
        return v_text;
    elsif jsonb_typeof(p_value) = 'object' then
        return (
            select '{' || string_agg(to_jsonb(e.key)::text || ':'
                || case when jsonb_typeof(e.value) in ('object', 'array') then _reproq_canonical_json(e.value)
                        else e.value::text end, ',' order by e.key collate "C") || '}'
            from jsonb_each(p_value) as e (key, value));
    elsif jsonb_typeof(p_value) = 'array' then
        return (
            select '[' || string_agg(
                case when jsonb_typeof(e.value) in ('object', 'array') then _reproq_canonical_json(e.value)
                     else e.value::text end, ',' order by e.place) || ']'
            from jsonb_array_elements(p_value) with ordinality as e (value, place));
    end if;
    return v_text;
end
$$;

revoke execute on function _reproq_canonical_json(jsonb) from public;
comment on function _reproq_canonical_json(jsonb) is
    'Canonical text of a JSON value: sorted keys, no spaces, no escapes for UTF-8. @0.1.0';
