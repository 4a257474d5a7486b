create or replace function _reproq_wait_lock(p_queue_name text) returns bigint
language sql stable strict parallel safe
as $$
-- The advisory lock that workers of a queue hold, shared, while they wait. One of 64 for each install schema: a worker of
-- many queues holds few, and queues that share one get notifications that they could do without.
select _reproq_key_hash('w:' || (hashtextextended(p_queue_name, 0) & 63))
$$;

revoke execute on function _reproq_wait_lock(text) from public;
comment on function _reproq_wait_lock(text) is 'Number of the advisory lock of workers that wait for tasks of a queue. @0.1.0';
