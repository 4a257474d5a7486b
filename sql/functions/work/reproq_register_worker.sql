create or replace function reproq_register_worker(
    p_worker_id text, p_hostname text, p_concurrency integer, p_queues text[], p_version text default null,
    p_allowed_modules text[] default null
) returns uuid
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
-- Announces the start of a worker and returns its incarnation: a new random id for this start, which its
-- claims and heartbeats show, so that a restart under the same name is never taken for its predecessor.
-- Raises RQ001 on an empty or endless name. Locks and writes its row of reproq_workers.
declare
    v_incarnation uuid := gen_random_uuid();
    v_now timestamptz := reproq_now();
begin
    if p_worker_id is null or p_worker_id = '' or octet_length(p_worker_id) > 512 then
        raise exception 'reproq_register_worker: p_worker_id must have 1 to 512 bytes'
            using errcode = 'RQ001', hint = 'Pass a name for the worker, for example host and process id.';
    end if;
    insert into reproq_workers as w
        (worker_id, hostname, concurrency, queues, started_at, last_seen_at, version, incarnation, allowed_modules)
    values (p_worker_id, coalesce(p_hostname, ''), coalesce(p_concurrency, 0),
            to_jsonb(coalesce(p_queues, '{}')), v_now, v_now, p_version, v_incarnation,
            to_jsonb(p_allowed_modules))
    on conflict (worker_id) do update
    set hostname = excluded.hostname, concurrency = excluded.concurrency, queues = excluded.queues,
        started_at = excluded.started_at, last_seen_at = excluded.last_seen_at,
        version = excluded.version, incarnation = excluded.incarnation,
        allowed_modules = excluded.allowed_modules;
    return v_incarnation;
end
$$;

revoke execute on function reproq_register_worker(text, text, integer, text[], text, text[]) from public;
comment on function reproq_register_worker(text, text, integer, text[], text, text[]) is
    'Announces a worker and returns the id of this start of it. @0.1.0';
