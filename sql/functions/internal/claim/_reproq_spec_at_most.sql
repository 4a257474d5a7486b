create or replace function _reproq_spec_at_most(p_spec jsonb) returns bigint
language sql stable parallel safe
as $$
-- Bytes that a stored spec has at most, from what the row says of it: nothing is read or unpacked. JSON text has up to
-- six bytes for one that is stored (control characters); pglz makes of 273 bytes three and a bit, lz4 of 255 one. Only
-- a text of few control characters that repeat, which reaches both, has more.
select case pg_column_compression(p_spec) when 'pglz' then 88 when 'lz4' then 255 else 6 end * pg_column_size(p_spec)::bigint
$$;

revoke execute on function _reproq_spec_at_most(jsonb) from public;
comment on function _reproq_spec_at_most(jsonb) is 'Upper bound of the bytes of a stored spec, without reading it. @0.1.0';
