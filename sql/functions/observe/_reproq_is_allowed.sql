create or replace function _reproq_is_allowed(p_modules jsonb, p_task_path text) returns boolean
language sql immutable parallel safe
as $$
-- Whether a worker that registered these module prefixes runs a task path: '*', the path itself, or a prefix that
-- ends at a dot. Null = unknown, so it may.
select p_modules is null or exists (
    select from jsonb_array_elements_text(p_modules) as m (prefix)
    where m.prefix in ('*', p_task_path) or starts_with(p_task_path, rtrim(m.prefix, '.') || '.'))
$$;

revoke execute on function _reproq_is_allowed(jsonb, text) from public;
comment on function _reproq_is_allowed(jsonb, text) is 'Whether a worker''s allowed modules cover a task path. @0.1.0';
