create or replace function _reproq_concurrency_limit(p_concurrency_key text) returns integer
language plpgsql stable parallel unsafe
as $$
-- The limit in force: the smallest positive one of all READY and RUNNING tasks with this key; null = none.
begin
    return (
        select t.concurrency_limit
        from task_runs t
        where hashtextextended(t.concurrency_key, 0) = hashtextextended(p_concurrency_key, 0)
          and t.status in ('READY', 'RUNNING') and t.concurrency_key <> '' and t.concurrency_limit > 0
        order by hashtextextended(t.concurrency_key, 0), t.concurrency_limit
        limit 1);
end
$$;

revoke execute on function _reproq_concurrency_limit(text) from public;
comment on function _reproq_concurrency_limit(text) is
    'Smallest positive limit among the active tasks of a concurrency key; null when there is none. @0.1.0';
