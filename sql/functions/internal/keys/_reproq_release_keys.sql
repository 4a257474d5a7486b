create or replace function reproq_let_go_keys(p_result_ids bigint[]) returns void
language plpgsql volatile parallel unsafe
as $$
-- These tasks no longer hold or wait for their keys: the next ones parked on them come back, one per place.
-- A statement of its own after the locks, so it sees what other sessions parked in the meantime.
-- Locks: parked tasks (skip locked).
begin
    perform reproq_unpark(k.key, k.places)
    from (
        select u.key, count(*)::integer as places
        from task_runs t
        cross join lateral (values ('l:' || nullif(t.lock_key, '')), ('c:' || nullif(t.concurrency_key, ''))) as u (key)
        where t.result_id = any (p_result_ids) and u.key is not null
        group by u.key
        order by u.key) k;
end
$$;

revoke execute on function reproq_let_go_keys(bigint[]) from public;
comment on function reproq_let_go_keys(bigint[]) is 'Un-parks the next tasks on the keys that these tasks let go. @v1';
