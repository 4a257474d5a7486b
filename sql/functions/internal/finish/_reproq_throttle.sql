create or replace function _reproq_throttle(p_task_paths text[], p_untils timestamptz[], p_now timestamptz) returns void
language plpgsql volatile parallel unsafe
as $$
-- Tasks of these paths asked that none of their path starts before an instant: the bucket task:<path> gives nothing
-- until then. It is made if it is missing (burst 0: after that it counts as absent); one with a rate has one token then. An instant
-- never moves backwards. Writes the audit log when the path was not throttled within the last hour.
-- The caller holds the rows of the tasks. Locks: waiting tasks of the path (skip locked), last the buckets in key order.
declare
    v_throttle record;
    v_former timestamptz;
begin
    for v_throttle in
        select 'task:' || u.path as key, u.path, max(u.until) as until
        from unnest(p_task_paths, p_untils) as u (path, until)
        where u.until > p_now
        group by u.path
        order by key
    loop
        select r.throttled_until into v_former from rate_limits r where r.key = v_throttle.key;
        if v_former is null then
            perform _reproq_relabel(v_throttle.path, v_throttle.key);
        end if;
        if coalesce(v_former < p_now - interval '1 hour', true) then
            perform _reproq_write_audit('throttle', jsonb_build_object('key', v_throttle.key, 'until', v_throttle.until));
        end if;
        insert into rate_limits as r (key, tokens_per_second, burst_size, current_tokens, last_refilled_at, throttled_until)
        values (v_throttle.key, 0, 0, 0, v_throttle.until, v_throttle.until)
        on conflict (key) do update
        set throttled_until = excluded.throttled_until, current_tokens = 1, last_refilled_at = excluded.last_refilled_at
        where coalesce(r.throttled_until < excluded.throttled_until, true);
    end loop;
end
$$;

revoke execute on function _reproq_throttle(text[], timestamptz[], timestamptz) from public;
comment on function _reproq_throttle(text[], timestamptz[], timestamptz) is
    'Lets no task of a path start before an instant: what Throttled asks for. @0.1.0';
