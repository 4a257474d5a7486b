create or replace function reproq_unpark_free(
    p_keys integer, p_given text[] default '{}', p_past_held boolean default false
) returns integer
language plpgsql volatile parallel unsafe
as $$
-- Looks at up to p_keys distinct keys that tasks are parked on, from a random one on and round, and
-- un-parks as many heads as a free key has places, 1,000 of a stream at most; how many tasks in all. What a finisher
-- could not see, and what was deleted, cancelled or written by hand, is found here: no parked task is lost.
-- p_past_held: of a key whose next tasks are un-parked already as many more as somebody holds of these. Not for claims:
-- they meet rows that other claims hold for a moment.
-- Locks: the tasks it changes and, with p_past_held, looks at; skip locked.
declare
    v_start text := md5(random()::text);
    v_free record;
    v_moved integer;
    v_held integer;
    v_count integer := 0;
begin
    for v_free in
        with recursive keys as (
            (select t.parked_on, md5(t.parked_on) as digest, 1 as place, false as wrapped
             from task_runs t
             where t.status = 'READY' and t.parked_on <> '' and md5(t.parked_on) >= v_start
             order by md5(t.parked_on)
             limit 1)
            union all
            (select t.parked_on, md5(t.parked_on), 1, true
             from task_runs t
             where t.status = 'READY' and t.parked_on <> '' and md5(t.parked_on) < v_start
             order by md5(t.parked_on)
             limit 1)
            union all
            select n.parked_on, md5(n.parked_on), k.place + 1, k.wrapped
            from keys k
            cross join lateral (
                select t.parked_on
                from task_runs t
                where t.status = 'READY' and t.parked_on <> '' and md5(t.parked_on) > k.digest
                order by md5(t.parked_on)
                limit 1) n
            where k.place < p_keys and not (k.wrapped and md5(n.parked_on) >= v_start)
        )
        select f.parked_on, least(f.places, 1000) as places
        from (select k.parked_on, reproq_free_places(k.parked_on) as places
              from keys k order by k.wrapped, k.place limit p_keys) f
        where f.places > cardinality(array_positions(p_given, f.parked_on))
    loop
        v_moved := reproq_unpark(v_free.parked_on, v_free.places);
        if v_moved = 0 and p_past_held then
            v_held := reproq_held_crowd(v_free.parked_on, v_free.places + 8);
            if v_held > 0 then
                v_moved := reproq_unpark(v_free.parked_on, v_free.places + v_held);
            end if;
        end if;
        v_count := v_count + v_moved;
    end loop;
    return v_count;
end
$$;

revoke execute on function reproq_unpark_free(integer, text[], boolean) from public;
comment on function reproq_unpark_free(integer, text[], boolean) is
    'Un-parks the heads of tasks parked on keys that are free; looks at a bounded number of keys. @v1';
