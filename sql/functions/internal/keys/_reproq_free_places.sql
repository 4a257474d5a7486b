create or replace function _reproq_free_places(p_blocked_on text) returns integer
language plpgsql stable parallel unsafe
as $$
-- How many more tasks could start under a key, by what is committed now, at least 0.
-- p_blocked_on as the column has it: l:<lock key> (1 or 0 places) or c:<concurrency key> (limit less used).
declare
    v_key text := substr(p_blocked_on, 3);
begin
    if p_blocked_on like 'l:%' then
        return case when exists (
            select from task_runs t
            where hashtextextended(t.lock_key, 0) = hashtextextended(v_key, 0) and t.status = 'RUNNING' and t.lock_key <> '') then 0 else 1 end;
    end if;
    return greatest(0, coalesce((_reproq_concurrency_limit(v_key)).max_running, 2147483647) - _reproq_concurrency_used(v_key));
end
$$;

revoke execute on function _reproq_free_places(text) from public;
comment on function _reproq_free_places(text) is 'Tasks that could start under a key (l:... or c:...) now. @0.1.0';
