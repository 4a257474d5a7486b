create or replace function _reproq_unblock(p_blocked_on text, p_places integer) returns integer
language plpgsql volatile parallel unsafe
as $$
-- Returns tasks blocked on this key to the claim index: afterwards it holds the p_places oldest of the key in each
-- stream (those in it already count if they are older than the first blocked one; younger ones must not pass it); how
-- many in all. Every stream, because one may be in a paused queue, under an empty bucket or behind its second key, and
-- because the claim alone knows their order; a task too many is blocked again.
-- At most 100 streams that lack one, among the first 1,000: streams that cannot move must not hide one that can.
-- Locks: the tasks it changes, skip locked. Writes blocked_on; notifies the workers of their queues.
declare
    v_count integer;
    v_queues text[];
begin
    with recursive streams as (
        (select t.queue_name, t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after) as head, 1 as place
         from task_runs t
         where hashtextextended(t.blocked_on, 0) = hashtextextended(p_blocked_on, 0) and t.status = 'READY' and t.blocked_on <> ''
         order by hashtextextended(t.blocked_on, 0), t.queue_name, t.limit_key, t.priority desc, greatest(t.enqueued_at, t.run_after)
         limit 1)
        union all
        select n.queue_name, n.limit_key, n.priority, n.head, s.place + 1
        from streams s
        cross join lateral (
            (select t.queue_name, t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after) as head
             from task_runs t
             where hashtextextended(t.blocked_on, 0) = hashtextextended(p_blocked_on, 0) and t.status = 'READY' and t.blocked_on <> ''
               and t.queue_name = s.queue_name and t.limit_key between s.limit_key and s.limit_key
               and t.priority < s.priority
             order by hashtextextended(t.blocked_on, 0), t.queue_name, t.limit_key, t.priority desc, greatest(t.enqueued_at, t.run_after)
             limit 1)
            union all
            (select t.queue_name, t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after) as head
             from task_runs t
             where hashtextextended(t.blocked_on, 0) = hashtextextended(p_blocked_on, 0) and t.status = 'READY' and t.blocked_on <> ''
               and (t.queue_name, t.limit_key) > (s.queue_name, s.limit_key)
             order by hashtextextended(t.blocked_on, 0), t.queue_name, t.limit_key, t.priority desc, greatest(t.enqueued_at, t.run_after)
             limit 1)
            limit 1) n
        where s.place < 1000
    ), heads as materialized (
        select h.result_id
        from (
            select r.* from (
                select s.*, p_places - _reproq_ready_backlog(
                    p_blocked_on, s.queue_name, s.limit_key, s.priority, s.head, p_places) as room
                from streams s) r
            where r.room > 0
            limit 100) s
        cross join lateral (
            select t.result_id
            from task_runs t
            where hashtextextended(t.blocked_on, 0) = hashtextextended(p_blocked_on, 0) and t.status = 'READY' and t.blocked_on <> ''
              and t.queue_name = s.queue_name and t.limit_key = s.limit_key and t.priority = s.priority
            order by greatest(t.enqueued_at, t.run_after), t.result_id
            limit s.room
            for no key update skip locked) h
    ), unblocked as (
        update task_runs t set blocked_on = '', revision = t.revision + 1
        where t.result_id = any (array(select h.result_id from heads h))
        returning t.queue_name
    )
    select count(*), array_agg(distinct u.queue_name) into v_count, v_queues from unblocked u;
    perform _reproq_notify(q.name) from unnest(v_queues) as q (name);
    return v_count;
end
$$;

revoke execute on function _reproq_unblock(text, integer) from public;
comment on function _reproq_unblock(text, integer) is
    'Returns the heads of the tasks blocked on a key to the claim index. @0.1.0';
