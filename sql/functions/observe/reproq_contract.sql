create or replace function reproq_contract(out oldest integer, out newest integer)
language sql immutable parallel safe
as $$
-- The interface numbers that this schema serves, oldest to newest. A worker works when its own is one of them; it asks
-- at each connect. newest is raised when workers need something new, oldest when an older worker could not live with a
-- change (sql/README.md, "Changing a function").
select 1, 1
$$;

revoke execute on function reproq_contract() from public;
comment on function reproq_contract() is 'Oldest and newest number of the interface that the schema serves; a worker looks for its own at each connect. @0.1.0';
