create or replace function reproq_limit_rm(p_key text) returns boolean
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- Removes a token bucket; true if there was one. The row global stays, with rate 0.
-- The first waiting tasks of a task: bucket return to the common stream (_reproq_relabel); the others stay in a stream
-- without a bucket. Locks: tasks (skip locked), then the bucket. Writes the audit log.
declare
    v_found boolean;
begin
    if p_key = 'global' then
        update rate_limits r set tokens_per_second = 0 where r.key = p_key and r.tokens_per_second > 0;
        v_found := found;
    else
        if p_key like 'task:%' then
            perform _reproq_relabel(substr(p_key, 6), '');
        end if;
        delete from rate_limits r where r.key = p_key;
        v_found := found;
    end if;
    perform _reproq_notify('');
    if v_found then
        perform _reproq_write_audit('limit_rm', jsonb_build_object('key', p_key));
    end if;
    return v_found;
end
$$;

revoke execute on function reproq_limit_rm(text) from public;
comment on function reproq_limit_rm(text) is
    'Removes a token bucket (global: sets its rate to 0); false when there was none. @0.1.0';
