create or replace function _reproq_admit_keys(
    p_lock_key text, p_concurrency_key text, p_limit integer,
    p_taken_locks text[], p_taken_keys text[], p_taken_slots integer[],
    out verdict text, out slot integer
)
language plpgsql volatile parallel unsafe
as $$
-- May a task with these keys start? verdict: '' = yes (slot: its place under the concurrency key),
-- 'busy' = another session is deciding about a key just now, l:... or c:... = that key is taken: block on it.
-- p_taken_*: keys and slots that this claim has given already.
-- Locks: tries the advisory locks of both keys, waits for none. Each look is a statement of its own after
-- its lock: one statement that locks and looks sees the table as it was before the lock (sql/README.md).
declare
    v_limit integer;
    v_used integer;
    v_first integer;
begin
    if p_lock_key <> '' then
        if p_lock_key = any (p_taken_locks) then
            verdict := 'l:' || p_lock_key;
            return;
        end if;
        if not pg_try_advisory_xact_lock(_reproq_key_hash('l:' || p_lock_key)) then
            verdict := 'busy';
            return;
        end if;
        if _reproq_free_places('l:' || p_lock_key) = 0 then
            verdict := 'l:' || p_lock_key;
            return;
        end if;
    end if;
    if p_concurrency_key <> '' and (p_limit > 0 or exists (
            select from reproq_concurrency_limits l where l.key = p_concurrency_key)) then
        if not pg_try_advisory_xact_lock(_reproq_key_hash('c:' || p_concurrency_key)) then
            verdict := 'busy';
            return;
        end if;
        v_limit := coalesce((_reproq_concurrency_limit(p_concurrency_key)).max_running, p_limit);
        v_used := _reproq_concurrency_used(p_concurrency_key)
            + (select count(*) from unnest(p_taken_keys) as k (key) where k.key = p_concurrency_key);
        if v_used >= v_limit then
            verdict := 'c:' || p_concurrency_key;
            return;
        end if;
        -- The lowest free number. There is none below those given by this claim: it gives the lowest first.
        select coalesce(max(k.number), 0) + 1 into v_first
        from unnest(p_taken_keys, p_taken_slots) as k (key, number)
        where k.key = p_concurrency_key;
        select v_first + count(*) filter (where h.slot = v_first + h.place - 1) into slot
        from (select t.concurrency_slot as slot,
                     row_number() over (order by hashtextextended(t.concurrency_key, 0), t.concurrency_slot) as place
              from task_runs t
              where hashtextextended(t.concurrency_key, 0) between hashtextextended(p_concurrency_key, 0) and hashtextextended(p_concurrency_key, 0)
                and t.concurrency_slot >= v_first and t.status = 'RUNNING' and t.concurrency_key <> '') h;
    end if;
    verdict := '';
end
$$;

revoke execute on function _reproq_admit_keys(text, text, integer, text[], text[], integer[]) from public;
comment on function _reproq_admit_keys(text, text, integer, text[], text[], integer[]) is
    'Decides whether a task may start under its lock key and concurrency key. @0.1.0';
