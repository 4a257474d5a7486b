create or replace function reproq_metrics()
returns table (metric text, label text, value double precision)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
-- What a metrics page shows of the whole fleet: counts of tasks by queue and by what they wait for, workers, limits.
-- Ready is due and not blocked: the tasks of a paused queue and of an empty bucket (throttled) are among them.
-- A count of 100,000 means "at least"; the age of the oldest due task is exact. A queue or a limit that has nothing to
-- show has no row. Labels: a queue, a reason, a limit's key, or ''.
-- While more than 10,000 tasks are counted the numbers are kept for 15 seconds, so that many workers and scrapes cost one
-- count; who asks while another session counts gets the numbers before, up to a minute old.
-- Locks and writes the row of reproq_metrics_cache (skip locked), unless the transaction is read-only.
declare
    v_now timestamptz := reproq_now();
    v_kept reproq_metrics_cache%rowtype;
    v_may_write boolean := current_setting('transaction_read_only') = 'off';
    v_numbers jsonb;
begin
    select c.* into v_kept from reproq_metrics_cache c;
    if v_kept.counted_at > v_now - interval '15 s' and v_kept.counted_at <= v_now then
        v_numbers := v_kept.numbers;
    elsif v_kept.counted_at > v_now - interval '1 minute' and v_kept.counted_at <= v_now and v_may_write then
        perform from reproq_metrics_cache c for no key update skip locked;
        if not found then
            v_numbers := v_kept.numbers;
        end if;
    end if;
    if v_numbers is null then
        select jsonb_agg(jsonb_build_array(m.metric, m.label, m.value)) into v_numbers from _reproq_count_metrics() m;
        if v_may_write and 10000 < (
            select sum((n.row ->> 2)::double precision) from jsonb_array_elements(v_numbers) as n (row)
            where n.row ->> 0 in ('ready', 'scheduled', 'blocked', 'waiting', 'running'))
        then
            insert into reproq_metrics_cache as c (counted_at, numbers)
            values (v_now, v_numbers)
            on conflict (is_only) do update set counted_at = excluded.counted_at, numbers = excluded.numbers
            where c.counted_at < excluded.counted_at;
        end if;
    end if;
    return query
    select n.row ->> 0, n.row ->> 1, (n.row ->> 2)::double precision
    from jsonb_array_elements(v_numbers) with ordinality as n (row, place)
    order by n.place;
end
$$;

revoke execute on function reproq_metrics() from public;
comment on function reproq_metrics() is
    'Numbers for a metrics page: tasks by queue and by what they wait for, workers, limits; a count of 100,000 means at least; above 10,000 tasks up to 15 seconds old. @0.1.0';
