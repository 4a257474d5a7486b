create or replace function _reproq_channel(p_name text) returns text
language sql stable parallel safe
as $$
-- The channel of this install: the name, and the schema behind it unless it is public, so that two installs in one
-- database do not wake each other. A channel has 63 bytes; two schemas that share their first 48 share channels.
select case when current_schema() ~ '^public$' then p_name else (p_name || '_' || current_schema())::name::text end
$$;

revoke execute on function _reproq_channel(text) from public;
comment on function _reproq_channel(text) is 'Name of a notification channel of the install schema. @0.1.0';
