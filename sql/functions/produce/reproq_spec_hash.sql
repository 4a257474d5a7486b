create or replace function reproq_spec_hash(p_spec jsonb) returns text
language sql immutable strict parallel safe security definer
set search_path from current
as $$
-- SHA-256 (hex) of the canonical JSON of a spec: tasks with the same hash are duplicates. The same as Reproq Django's.
select encode(sha256(convert_to(_reproq_canonical_json(p_spec), 'UTF8')), 'hex')
$$;

revoke execute on function reproq_spec_hash(jsonb) from public;
comment on function reproq_spec_hash(jsonb) is
    'SHA-256 hex of the canonical JSON of a spec; equal specs of active tasks are one task. @0.1.0';
