create or replace function reproq_ring_control(p_message jsonb) returns void
language plpgsql volatile parallel unsafe
as $$
-- Tells the workers what an operator did: NOTIFY reproq_control at commit, with {"op": "cancel", "id": 1} or
-- {"op": "pause"|"resume", "queue": "q"} (no queue when its name is long). Silent while reproq.bell is off.
begin
    if coalesce(current_setting('reproq.bell', true), '') <> 'off' then
        perform pg_notify('reproq_control', case when octet_length(p_message::text) <= 1000
            then p_message else p_message - 'queue' end::text);
    end if;
end
$$;

revoke execute on function reproq_ring_control(jsonb) from public;
comment on function reproq_ring_control(jsonb) is 'Tells the workers about a cancel, pause or resume at commit. @v1';
