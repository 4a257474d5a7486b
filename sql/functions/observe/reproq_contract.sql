create or replace function reproq_contract() returns integer
language sql immutable parallel safe
as $$
-- The interface number of this schema. A worker refuses to start on one it does not know.
-- Raised only when an older worker could not live with the change (sql/README.md, "Changing").
select 1
$$;

revoke execute on function reproq_contract() from public;
comment on function reproq_contract() is 'Number of the interface between schema and worker; a worker checks it before it starts. @0.1.0';
