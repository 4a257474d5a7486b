create or replace function _reproq_release_keys(p_result_ids bigint[]) returns void
language plpgsql volatile parallel unsafe
as $$
-- These tasks no longer hold or wait for their keys: the next ones blocked on them are unblocked, one per place.
-- A statement of its own after the locks, so it sees which tasks other sessions blocked in the meantime.
-- Locks: blocked tasks (skip locked).
begin
    perform _reproq_unblock(k.key, k.places)
    from (
        select u.key, count(*)::integer as places
        from task_runs t
        cross join lateral (values ('l:' || nullif(t.lock_key, '')), ('c:' || nullif(t.concurrency_key, ''))) as u (key)
        where t.result_id = any (p_result_ids) and u.key is not null
        group by u.key
        order by u.key) k;
end
$$;

revoke execute on function _reproq_release_keys(bigint[]) from public;
comment on function _reproq_release_keys(bigint[]) is 'Unblocks the next tasks on the keys that these tasks release. @0.1.0';
