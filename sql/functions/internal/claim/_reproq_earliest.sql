create or replace function _reproq_earliest(p_queues text[])
returns table (queue_name text, limit_key text, since timestamptz)
language sql stable parallel unsafe
as $$
-- For each queue and limit key with unblocked READY tasks, paused queues left out: since when (or from when on) the
-- first of them is ready.
-- Loose index scan over task_runs_ready_since: one probe each, at any number of priorities.
-- Takes no lock, writes nothing. Inlined in the statements of functions that pin the plan.
with recursive earliest as (
    select q.name, e.limit_key, e.since
    from (select distinct u.name from unnest(p_queues) as u (name)) q
    cross join lateral (
        select t.limit_key, greatest(t.enqueued_at, t.run_after) as since
        from task_runs t
        where t.queue_name = q.name and '' || t.status = 'READY' and t.blocked_on = ''
        order by t.queue_name, t.limit_key, greatest(t.enqueued_at, t.run_after), t.result_id
        limit 1) e
    where not exists (select from reproq_queue_controls c where c.queue_name = q.name and c.paused)
    union all
    select s.name, e.limit_key, e.since
    from earliest s
    cross join lateral (
        select t.limit_key, greatest(t.enqueued_at, t.run_after) as since
        from task_runs t
        where t.queue_name = s.name and t.limit_key > s.limit_key and '' || t.status = 'READY' and t.blocked_on = ''
        order by t.queue_name, t.limit_key, greatest(t.enqueued_at, t.run_after), t.result_id
        limit 1) e
)
select s.name, s.limit_key, s.since from earliest s
$$;

revoke execute on function _reproq_earliest(text[]) from public;
comment on function _reproq_earliest(text[]) is
    'When the first unblocked READY task of each queue and limit key is ready, paused queues left out. @0.1.0';
