create or replace function reproq_ring(p_queue_name text) returns void
language plpgsql volatile parallel unsafe
as $$
-- Rings the bell: NOTIFY reproq_ready at commit, once per queue and transaction. Payload: the queue, or empty
-- (any queue) when its name is longer than 200 bytes. Silent while the setting reproq.bell is off.
-- A bell is a hint and carries no authority; a worker that misses it polls.
begin
    if coalesce(current_setting('reproq.bell', true), '') <> 'off' then
        perform pg_notify('reproq_ready', case when octet_length(p_queue_name) <= 200 then p_queue_name else '' end);
    end if;
end
$$;

revoke execute on function reproq_ring(text) from public;
comment on function reproq_ring(text) is 'Wakes the workers of a queue at commit. @v1';
