create or replace function _reproq_unique_digest(p_task_path text, p_unique_key text) returns bytea
language sql immutable parallel safe
as $$
-- What reproq_unique_keys knows a key by: SHA-256 of the path, which has no line break, and the key. Keys may be long.
select sha256(convert_to(p_task_path || E'\n' || p_unique_key, 'UTF8'))
$$;

revoke execute on function _reproq_unique_digest(text, text) from public;
comment on function _reproq_unique_digest(text, text) is 'Digest of a unique key of a task path. @0.1.0';
