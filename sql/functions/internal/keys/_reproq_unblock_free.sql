create or replace function _reproq_unblock_free(
    p_keys integer, p_given text[] default '{}', p_past_held boolean default false
) returns integer
language plpgsql volatile parallel unsafe
as $$
-- Looks at up to p_keys distinct keys that tasks are blocked on, from a random one, wrapping around, and
-- unblocks as many heads as a free key has places, 1,000 of a stream at most; how many tasks in all. What a finisher
-- could not see, and what was deleted, cancelled or written by hand, is found here: no blocked task is lost.
-- p_past_held: when the next tasks of a key are unblocked already, as many more as other sessions hold of these. Not
-- for claims: other claims hold rows for a moment only.
-- Locks: the tasks it changes and, with p_past_held, counts; skip locked.
declare
    v_start bigint := hashtextextended(random()::text, 0);
    v_free record;
    v_moved integer;
    v_held integer;
    v_count integer := 0;
begin
    for v_free in
        with recursive keys as (
            (select t.blocked_on, hashtextextended(t.blocked_on, 0) as digest, 1 as place, false as wrapped
             from task_runs t
             where t.status = 'READY' and t.blocked_on <> '' and hashtextextended(t.blocked_on, 0) >= v_start
             order by hashtextextended(t.blocked_on, 0)
             limit 1)
            union all
            (select t.blocked_on, hashtextextended(t.blocked_on, 0), 1, true
             from task_runs t
             where t.status = 'READY' and t.blocked_on <> '' and hashtextextended(t.blocked_on, 0) < v_start
             order by hashtextextended(t.blocked_on, 0)
             limit 1)
            union all
            select n.blocked_on, hashtextextended(n.blocked_on, 0), k.place + 1, k.wrapped
            from keys k
            cross join lateral (
                select t.blocked_on
                from task_runs t
                where t.status = 'READY' and t.blocked_on <> '' and hashtextextended(t.blocked_on, 0) > k.digest
                order by hashtextextended(t.blocked_on, 0)
                limit 1) n
            where k.place < p_keys and not (k.wrapped and hashtextextended(n.blocked_on, 0) >= v_start)
        )
        select f.blocked_on, least(f.places, 1000) as places
        from (select k.blocked_on, _reproq_free_places(k.blocked_on) as places
              from keys k order by k.wrapped, k.place limit p_keys) f
        where f.places > cardinality(array_positions(p_given, f.blocked_on))
    loop
        v_moved := _reproq_unblock(v_free.blocked_on, v_free.places);
        if v_moved = 0 and p_past_held then
            v_held := _reproq_held_backlog(v_free.blocked_on, v_free.places + 8);
            if v_held > 0 then
                v_moved := _reproq_unblock(v_free.blocked_on, v_free.places + v_held);
            end if;
        end if;
        v_count := v_count + v_moved;
    end loop;
    return v_count;
end
$$;

revoke execute on function _reproq_unblock_free(integer, text[], boolean) from public;
comment on function _reproq_unblock_free(integer, text[], boolean) is
    'Unblocks the heads of tasks blocked on keys that are free; looks at a bounded number of keys. @0.1.0';
