create or replace function _reproq_concurrency_limit(
    p_concurrency_key text, out max_running integer, out set_by bigint
)
language plpgsql stable parallel unsafe
as $$
-- The limit in force under a key: what an operator set (reproq_concurrency_set), else the smallest positive one of the
-- tasks with this key that run or are due; null = none. set_by: the task that has this limit; null when an operator did.
-- A task that is due later limits nothing yet. One probe for each smaller limit that only such tasks have, 100 at most;
-- then the next one holds, due or not.
-- "between x and x" and the order keep other indexes away (sql/README.md, "Plans").
declare
    v_now timestamptz := reproq_now();
    v_digest bigint := hashtextextended(p_concurrency_key, 0);
    v_since timestamptz;
begin
    select l.max_running into max_running from reproq_concurrency_limits l where l.key = p_concurrency_key;
    if found then
        return;
    end if;
    max_running := 0;
    for v_place in 1..100 loop
        select t.concurrency_limit, t.result_id,
               case when t.status = 'READY' then greatest(t.enqueued_at, t.run_after) else '-infinity' end
        into max_running, set_by, v_since
        from task_runs t
        where hashtextextended(t.concurrency_key, 0) between v_digest and v_digest
          and t.status in ('READY', 'RUNNING') and t.concurrency_key <> ''
          and t.concurrency_limit > 0 and t.concurrency_limit > max_running
        order by hashtextextended(t.concurrency_key, 0), t.concurrency_limit,
                 case when t.status = 'READY' then greatest(t.enqueued_at, t.run_after) else '-infinity' end
        limit 1;
        exit when not found or v_since <= v_now;
    end loop;
end
$$;

revoke execute on function _reproq_concurrency_limit(text) from public;
comment on function _reproq_concurrency_limit(text) is
    'Limit in force under a concurrency key, and the task that sets it: an operator''s, else the smallest positive one of running and due tasks; null when there is none. @0.1.0';
