create or replace function _reproq_max_spec_bytes() returns bigint
language sql stable parallel safe
as $$
-- What the text of a spec may measure: the setting reproq.max_spec_bytes (of a session, role or database; 4194304
-- or 4 MB), else 1 MiB, which is also what workers take (max_payload_bytes).
select coalesce(pg_size_bytes(nullif(current_setting('reproq.max_spec_bytes', true), '')), 1048576)
$$;

revoke execute on function _reproq_max_spec_bytes() from public;
comment on function _reproq_max_spec_bytes() is 'Largest spec in bytes: the setting reproq.max_spec_bytes, else 1 MiB. @0.1.0';
