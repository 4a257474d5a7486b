create or replace function _reproq_blocks_at_insert(p_tasks jsonb, p_limit_keys text[], p_kind text, p_now timestamptz)
returns integer[]
language plpgsql volatile parallel unsafe
as $$
-- _reproq_blocked_from_start for the elements of an array. They count among themselves, too, in the order in which they
-- become ready. By place: 1 = blocked on its lock key, 2 = on its concurrency key, else 0. The first step of a chain is
-- the only READY one; the last element of a chord waits.
declare
    v_blocks integer[];
begin
    with keyed as (
        select t.place, t.lock_key, t.concurrency_key, 8 + least(t.concurrency_limit, 1000) as places, t.queue_name,
               t.priority, t.concurrency_limit, greatest(p_now, t.run_after) as until,
               case when 'task:' || t.task_path = any (p_limit_keys) then 'task:' || t.task_path else '' end as limit_key
        from _reproq_read_tasks(p_tasks, p_now) t
        where coalesce(t.lock_key, t.concurrency_key) is not null
          and case p_kind when 'chain' then t.place = 1 when 'chord' then t.place < jsonb_array_length(p_tasks) else true end
    ), lock_backlog as materialized (
        select d.*, _reproq_ready_backlog('l:' || d.lock_key, d.queue_name, d.limit_key, d.priority, d.until, 8) as number
        from (select distinct k.lock_key, k.queue_name, k.limit_key, k.priority, k.until from keyed k where k.lock_key is not null) d
    ), by_lock as (
        select k.*, b.number + row_number() over (
                   partition by k.lock_key, k.queue_name, k.limit_key, k.priority order by k.until, k.place) > 8 as lock_blocks
        from keyed k
        left join lock_backlog b on b.lock_key = k.lock_key and (b.queue_name, b.limit_key, b.priority, b.until)
            = (k.queue_name, k.limit_key, k.priority, k.until)
    ), concurrency_backlog as materialized (
        select d.*, _reproq_ready_backlog('c:' || d.concurrency_key, d.queue_name, d.limit_key, d.priority, d.until, d.places) as number
        from (select k.concurrency_key, k.queue_name, k.limit_key, k.priority, k.until, max(k.places) as places
              from keyed k
              where k.concurrency_key is not null and k.concurrency_limit > 0
              group by k.concurrency_key, k.queue_name, k.limit_key, k.priority, k.until) d
    ), by_both as (
        select k.place, k.lock_blocks,
               k.concurrency_limit > 0 and b.number + row_number() over (
                   partition by k.concurrency_key, k.queue_name, k.limit_key, k.priority,
                                coalesce(k.lock_blocks, false) order by k.until, k.place) > k.places as concurrency_blocks
        from by_lock k
        left join concurrency_backlog b on b.concurrency_key = k.concurrency_key
            and (b.queue_name, b.limit_key, b.priority, b.until) = (k.queue_name, k.limit_key, k.priority, k.until)
    )
    select array_agg(case when k.lock_blocks then 1 when k.concurrency_blocks then 2 else 0 end order by n.place)
    into v_blocks
    from generate_series(1, jsonb_array_length(p_tasks)) as n (place)
    left join by_both k on k.place = n.place;
    return v_blocks;
end
$$;

revoke execute on function _reproq_blocks_at_insert(jsonb, text[], text, timestamptz) from public;
comment on function _reproq_blocks_at_insert(jsonb, text[], text, timestamptz) is
    'Which elements of reproq_enqueue_many are blocked at once, and on which of their keys. @0.1.0';
