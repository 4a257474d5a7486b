create or replace function _reproq_streams(p_queues text[])
returns table (queue_name text, queue_place integer, limit_key text, priority integer,
               head_since timestamptz, head_id bigint, number integer)
language plpgsql stable parallel unsafe
as $$
-- The streams that hold unblocked READY tasks of the given queues, due or not, paused queues left out; with the head
-- of each: its first task, and since when (or from when on) that is ready.
-- Of a queue and limit key only the 16 streams with the highest priorities, numbered from 1: with a 16th there may be
-- more, any number of them.
-- Loose index scan over task_runs_claim: one probe per stream, whatever the depth of the queues.
-- A stream's successor has the same limit_key and the next lower priority, else the next limit_key.
-- "between x and x" keeps the column in the sort order, so that no other index will do (sql/README.md, "Plans").
-- Takes no lock, writes nothing. Called by reproq_claim, which pins the plan.
begin
    return query
    with recursive queues as materialized (
        select q.name, min(q.place)::integer as place
        from unnest(p_queues) with ordinality as q (name, place)
        where not exists (
            select from reproq_queue_controls c where c.queue_name = q.name and c.paused)
        group by q.name
    ), streams as (
        select q.name, q.place, h.limit_key, h.priority, h.since, h.result_id, 1 as number
        from queues q
        cross join lateral (
            select t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after) as since, t.result_id
            from task_runs t
            where t.queue_name = q.name and t.status = 'READY' and t.blocked_on = ''
            order by t.queue_name, t.limit_key, t.priority desc, greatest(t.enqueued_at, t.run_after), t.result_id
            limit 1) h
        union all
        select s.name, s.place, n.limit_key, n.priority, n.since, n.result_id,
               case when n.limit_key = s.limit_key then s.number + 1 else 1 end
        from streams s
        cross join lateral (
            (select t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after) as since, t.result_id
             from task_runs t
             where s.number < 16 and t.queue_name = s.name and t.status = 'READY' and t.blocked_on = ''
               and t.limit_key between s.limit_key and s.limit_key and t.priority < s.priority
             order by t.queue_name, t.limit_key, t.priority desc, greatest(t.enqueued_at, t.run_after), t.result_id
             limit 1)
            union all
            (select t.limit_key, t.priority, greatest(t.enqueued_at, t.run_after) as since, t.result_id
             from task_runs t
             where t.queue_name = s.name and t.status = 'READY' and t.blocked_on = ''
               and t.limit_key > s.limit_key
             order by t.queue_name, t.limit_key, t.priority desc, greatest(t.enqueued_at, t.run_after), t.result_id
             limit 1)
            limit 1) n
    )
    select s.name, s.place, s.limit_key, s.priority, s.since, s.result_id, s.number from streams s;
end
$$;

revoke execute on function _reproq_streams(text[]) from public;
comment on function _reproq_streams(text[]) is
    'The first 16 streams (queue, limit key, priority) with unblocked READY tasks of each queue and limit key, paused queues left out, and their heads. @0.1.0';
