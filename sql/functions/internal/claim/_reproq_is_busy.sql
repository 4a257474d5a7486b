create or replace function _reproq_is_busy(
    p_busy text[], p_lock_key text, p_concurrency_key text, p_concurrency_limit integer
) returns boolean
language sql immutable parallel safe
as $$
-- Whether a task with these keys cannot start because one of them is in p_busy (l:... and c:...). Inlined.
select p_busy <> '{}' and coalesce('l:' || p_lock_key = any (p_busy), false)
       or p_busy <> '{}' and p_concurrency_limit > 0 and coalesce('c:' || p_concurrency_key = any (p_busy), false)
$$;

revoke execute on function _reproq_is_busy(text[], text, text, integer) from public;
comment on function _reproq_is_busy(text[], text, text, integer) is
    'Whether one of a task''s keys is among busy ones. @0.1.0';
