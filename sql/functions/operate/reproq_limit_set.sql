create or replace function reproq_limit_set(p_key text, p_rate double precision, p_burst integer) returns void
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- Sets a token bucket: task:<path>, queue:<name> or global; p_rate tokens a second, at most p_burst of them.
-- A new bucket starts full; a changed one keeps its level, at most the new burst. Rate 0 = as if absent.
-- Waiting tasks of a task: bucket move to a stream of their own; the claim moves those that another session holds.
-- Raises RQ001 on a bad key, rate or burst. Locks: the bucket, then tasks (skip locked). Reads all READY tasks.
-- Writes the audit log.
declare
    v_now timestamptz := reproq_now();
begin
    perform _reproq_check_limit(p_key, p_rate, p_burst);
    insert into rate_limits as r (key, tokens_per_second, burst_size, current_tokens, last_refilled_at)
    values (p_key, p_rate, p_burst, p_burst, v_now)
    on conflict (key) do update
    set tokens_per_second = excluded.tokens_per_second, burst_size = excluded.burst_size,
        current_tokens = case when r.tokens_per_second > 0
            then least(excluded.burst_size, reproq_bucket_level(
                r.tokens_per_second, r.burst_size, r.current_tokens, r.last_refilled_at, v_now))
            else excluded.burst_size end,
        last_refilled_at = greatest(r.last_refilled_at, v_now);
    if p_key like 'task:%' then
        perform _reproq_relabel(substr(p_key, 6), case when p_rate > 0 then p_key else '' end);
    end if;
    perform _reproq_notify('');
    perform _reproq_write_audit('limit_set', jsonb_build_object('key', p_key, 'rate', p_rate, 'burst', p_burst));
end
$$;

revoke execute on function reproq_limit_set(text, double precision, integer) from public;
comment on function reproq_limit_set(text, double precision, integer) is
    'Sets a token bucket (task:<path>, queue:<name> or global): p_rate starts a second, at most p_burst at once; rate 0 = off. @0.1.0';
