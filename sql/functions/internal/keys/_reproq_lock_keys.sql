create or replace function _reproq_lock_keys(p_result_ids bigint[]) returns bigint[]
language plpgsql volatile parallel unsafe
as $$
-- Takes the advisory locks of the keys that these tasks hold while RUNNING, in the order of their numbers,
-- waiting: a claim that blocks a task on one of them has then committed, so it will be unblocked. First of all
-- locks. Returns the tasks it left out: those past the first 100 keyed ones, so that a batch cannot
-- exhaust the server's lock table; their callers are told busy and come again.
declare
    v_keyed bigint[];
begin
    select array_agg(t.result_id order by t.result_id) filter (
               where t.status = 'RUNNING' and (t.lock_key <> '' or t.concurrency_key <> ''))
    into v_keyed
    from task_runs t
    where t.result_id = any (p_result_ids);
    if v_keyed is null then
        return '{}';
    end if;
    perform pg_advisory_xact_lock(n.number)
    from (select distinct _reproq_key_hash(k.key) as number
          from task_runs t
          cross join lateral (values ('l:' || nullif(t.lock_key, '')), ('c:' || nullif(t.concurrency_key, ''))) as k (key)
          where t.result_id = any (v_keyed[:100]) and k.key is not null
          order by 1) n;
    return v_keyed[101:];
end
$$;

revoke execute on function _reproq_lock_keys(bigint[]) from public;
comment on function _reproq_lock_keys(bigint[]) is
    'Locks the keys that running tasks hold; returns the tasks past the first hundred keyed ones. @0.1.0';
