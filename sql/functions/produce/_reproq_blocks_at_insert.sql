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
    with tasks as (
        select t.place, t.queue_name, t.priority, t.concurrency_limit, greatest(p_now, t.run_after) as until,
               8 + least(t.concurrency_limit, 1000) as places,
               case when 'task:' || t.task_path = any (p_limit_keys) then 'task:' || t.task_path else '' end as limit_key,
               case when r.is_ready then t.lock_key end as lock_key,
               case when r.is_ready then t.concurrency_key end as concurrency_key
        from _reproq_read_tasks(p_tasks, p_now) t
        cross join lateral (values (case p_kind when 'chain' then t.place = 1
            when 'chord' then t.place < jsonb_array_length(p_tasks) else true end)) as r (is_ready)
    ), lock_counted as (
        -- One probe for each key, stream and time, by the first task of these. A join would compare each task with each.
        select t.*, case when t.lock_key is not null and row_number() over (
                   partition by t.lock_key, t.queue_name, t.limit_key, t.priority, t.until order by t.place) = 1
               then _reproq_ready_backlog('l:' || t.lock_key, t.queue_name, t.limit_key, t.priority, t.until, 8) end as found
        from tasks t
    ), by_lock as (
        select t.*, max(t.found) over (partition by t.lock_key, t.queue_name, t.limit_key, t.priority, t.until)
               + row_number() over (
                   partition by t.lock_key, t.queue_name, t.limit_key, t.priority order by t.until, t.place) > 8 as lock_blocks
        from lock_counted t
    ), concurrency_first as (
        select t.*, max(t.places) over same as most, row_number() over (same order by t.place) = 1 as is_first
        from by_lock t
        window same as (partition by t.concurrency_key, t.queue_name, t.limit_key, t.priority, t.until, t.concurrency_limit > 0)
    ), concurrency_counted as (
        select t.*, case when t.is_first and t.concurrency_key is not null and t.concurrency_limit > 0
               then _reproq_ready_backlog('c:' || t.concurrency_key, t.queue_name, t.limit_key, t.priority, t.until, t.most) end as number
        from concurrency_first t
    ), by_both as (
        select t.place, t.lock_blocks, max(t.number) over (
                   partition by t.concurrency_key, t.queue_name, t.limit_key, t.priority, t.until, t.concurrency_limit > 0)
               + row_number() over (
                   partition by t.concurrency_key, t.queue_name, t.limit_key, t.priority, coalesce(t.lock_blocks, false)
                   order by t.until, t.place) > t.places as concurrency_blocks
        from concurrency_counted t
    )
    select array_agg(case when t.lock_blocks then 1 when t.concurrency_blocks then 2 else 0 end order by t.place)
    into v_blocks
    from by_both t;
    return v_blocks;
end
$$;

revoke execute on function _reproq_blocks_at_insert(jsonb, text[], text, timestamptz) from public;
comment on function _reproq_blocks_at_insert(jsonb, text[], text, timestamptz) is
    'Which elements of reproq_enqueue_many are blocked at once, and on which of their keys. @0.1.0';
