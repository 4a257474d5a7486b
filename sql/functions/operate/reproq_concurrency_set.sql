create or replace function reproq_concurrency_set(p_key text, p_limit integer) returns void
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- At most p_limit tasks with this concurrency key run at a time, whatever the tasks say, those without a limit of their
-- own included. Null: what the tasks say counts again. Running tasks go on; the next claims respect it. Tasks that may
-- start now because of it are unblocked, 1,000 of a stream; claims and reproq_reclaim find the rest.
-- Raises RQ001 on a bad key or limit, RQ003. Locks: the key, waiting two seconds at most; blocked tasks (skip locked).
-- Writes the audit log.
declare
    v_places integer;
begin
    perform _reproq_require_read_committed();
    if p_key is null or p_key = '' or octet_length(p_key) > 1024 then
        raise exception 'reproq_concurrency_set: p_key must have 1 to 1024 bytes'
            using errcode = 'RQ001', hint = 'Name the concurrency key of the tasks to limit.';
    elsif p_limit < 1 then
        raise exception 'reproq_concurrency_set: p_limit must be at least 1 or null, not %', p_limit
            using errcode = 'RQ001', hint = 'Pass how many tasks may run at once; null removes the limit; reproq_pause stops a queue.';
    end if;
    perform pg_advisory_xact_lock(_reproq_key_hash('c:' || p_key));
    if p_limit is null then
        delete from reproq_concurrency_limits l where l.key = p_key;
    else
        insert into reproq_concurrency_limits as l (key, max_running, set_at)
        values (p_key, p_limit, reproq_now())
        on conflict (key) do update set max_running = excluded.max_running, set_at = excluded.set_at
        where l.max_running <> excluded.max_running;
    end if;
    if found then
        v_places := _reproq_free_places('c:' || p_key);
        if v_places > 0 then
            perform _reproq_unblock('c:' || p_key, least(v_places, 1000));
        end if;
        perform _reproq_write_audit('concurrency_set', jsonb_build_object('key', p_key, 'limit', p_limit));
    end if;
end
$$;

revoke execute on function reproq_concurrency_set(text, integer) from public;
comment on function reproq_concurrency_set(text, integer) is
    'Lets at most p_limit tasks of a concurrency key run at a time, whatever the tasks say; null removes the limit. @0.1.0';
