create or replace function reproq_limit_set(p_key text, p_rate double precision, p_burst integer) returns void
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- Sets a token bucket: task:<path>, queue:<name> or global; p_rate tokens a second, at most p_burst of them.
-- A new bucket starts full; a changed one keeps its level, at most the new burst. Rate 0 = no limit:
-- not that of the queue either for a task: bucket, nor the global one.
-- The first waiting tasks of a task: bucket move to a stream of their own (_reproq_relabel); claims move the rest.
-- Raises RQ001 on a bad key, rate or burst. Locks: tasks (skip locked), then the bucket, which claims wait for.
-- Writes the audit log.
declare
    v_now timestamptz := reproq_now();
begin
    if p_key is null or p_key !~ '^(global|(task|queue):.+)$' or octet_length(p_key) > 1024 then
        raise exception 'reproq_limit_set: p_key must be global, queue:<name> or task:<path>, not %',
            coalesce(quote_literal(left(p_key, 60)), 'null')
            using errcode = 'RQ001', hint = 'Pass for example ''task:app.tasks.send''.';
    elsif p_rate is null or p_rate < 0 or p_rate > 1000000 or p_rate = 'NaN' then
        raise exception 'reproq_limit_set: p_rate must be from 0 to 1000000 tokens a second, not %', coalesce(p_rate::text, 'null')
            using errcode = 'RQ001', hint = 'Pass for example 5, or 0.1 for one every ten seconds; 0 lifts every limit from it.';
    elsif p_rate > 0 and p_rate < 0.000001 then
        raise exception 'reproq_limit_set: p_rate must be 0 or at least 0.000001, not %', p_rate
            using errcode = 'RQ001', hint = 'Pause the queue to stop it.';
    elsif p_burst is null or p_burst < 1 or p_burst > 1000000 then
        raise exception 'reproq_limit_set: p_burst must be from 1 to 1000000, not %', coalesce(p_burst::text, 'null')
            using errcode = 'RQ001', hint = 'Pass how many tasks may start at once, for example 10.';
    end if;
    if p_key like 'task:%' then
        perform _reproq_relabel(substr(p_key, 6), p_key);
    end if;
    perform _reproq_write_audit('limit_set', jsonb_build_object('key', p_key, 'rate', p_rate, 'burst', p_burst));
    insert into rate_limits as r (key, tokens_per_second, burst_size, current_tokens, last_refilled_at)
    values (p_key, p_rate, p_burst, p_burst, v_now)
    on conflict (key) do update
    set tokens_per_second = excluded.tokens_per_second, burst_size = excluded.burst_size,
        current_tokens = case when r.tokens_per_second > 0
            then least(excluded.burst_size, reproq_bucket_level(
                r.tokens_per_second, r.burst_size, r.current_tokens, r.last_refilled_at, v_now))
            else excluded.burst_size end,
        last_refilled_at = greatest(r.last_refilled_at, v_now);
    perform _reproq_notify('');
end
$$;

revoke execute on function reproq_limit_set(text, double precision, integer) from public;
comment on function reproq_limit_set(text, double precision, integer) is
    'Sets a token bucket (task:<path>, queue:<name> or global): p_rate starts a second, at most p_burst at once; rate 0 = no limit, a wider one neither. @0.1.0';
