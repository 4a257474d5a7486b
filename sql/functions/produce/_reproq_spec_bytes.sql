create or replace function _reproq_spec_bytes(p_task jsonb) returns bigint
language plpgsql stable parallel safe
as $$
-- What the text of the spec of a checked element of reproq_enqueue_many measures. Only large ones are measured.
begin
    return (
        select octet_length(_reproq_build_spec(t.task_path, t.args, t.kwargs, t.queue_name, t.priority, t.run_after,
            t.lock_key, t.concurrency_key, t.concurrency_limit, t.max_attempts, t.timeout_seconds, t.takes_context,
            t.backoff_seconds)::text)
        from _reproq_read_tasks(jsonb_build_array(p_task), reproq_now()) t);
end
$$;

revoke execute on function _reproq_spec_bytes(jsonb) from public;
comment on function _reproq_spec_bytes(jsonb) is 'Bytes of the spec of an element of reproq_enqueue_many. @0.1.0';
