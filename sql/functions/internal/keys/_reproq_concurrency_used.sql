create or replace function _reproq_concurrency_used(p_concurrency_key text) returns integer
language plpgsql stable parallel unsafe
as $$
-- Running tasks that count against the limit of a key. A task with the key but without a positive limit
-- does not, unless it started under an operator's limit; one that a Go worker started does, though it has no slot.
begin
    return (select count(*)::integer from (
        select from task_runs t
        where hashtextextended(t.concurrency_key, 0)
                  between hashtextextended(p_concurrency_key, 0) and hashtextextended(p_concurrency_key, 0)
          and t.status = 'RUNNING' and t.concurrency_key <> ''
          and (t.concurrency_limit > 0 or t.concurrency_slot is not null)
        order by hashtextextended(t.concurrency_key, 0), t.concurrency_slot) u);
end
$$;

revoke execute on function _reproq_concurrency_used(text) from public;
comment on function _reproq_concurrency_used(text) is 'Running tasks that count against a concurrency key. @0.1.0';
